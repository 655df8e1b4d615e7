"""How long a model may be silent, and how much it may say."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from app.domain.errors import AnswerFailed
from app.models.client import Finished, Pieces


async def bounded(pieces: Pieces, *, silence_seconds: float, max_characters: int) -> Pieces:
    """Pass a model's pieces on until they end, are missing for too long, or are too many.

    Raises AnswerFailed: ``model_timeout`` when nothing comes for ``silence_seconds``, the first
    piece included; ``answer_too_long`` when there is more text than ``max_characters`` code
    points, after exactly so many were passed on; ``model_cut_off`` when the pieces end without a
    Finished. However it ends, ``pieces`` is closed before it does.
    """
    room = max_characters
    async with aclosing(pieces):
        while True:
            limit = asyncio.timeout(silence_seconds)
            try:
                async with limit:
                    piece = await anext(pieces, None)
            except TimeoutError:
                if not limit.expired():  # the model's own error, and a bug there
                    raise
                raise AnswerFailed(
                    "model_timeout", f"The model sent nothing for {silence_seconds:g} seconds"
                ) from None
            if piece is None:
                raise AnswerFailed("model_cut_off", "The model's answer broke off")
            if isinstance(piece, Finished):
                yield piece
                return
            if len(piece) > room:
                if room:
                    yield piece[:room]
                raise AnswerFailed(
                    "answer_too_long", "The answer was ended because it became too long"
                )
            room -= len(piece)
            yield piece
