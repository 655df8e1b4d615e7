"""How long a model may be silent, and how much it may say."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from app.domain.errors import AnswerFailed
from app.models.client import Finished, ModelFailed, Pieces, Reasoning


async def timely(pieces: Pieces, *, first_seconds: float, silence_seconds: float) -> Pieces:
    """Pass pieces on; raise ModelFailed ``model_timeout`` when one is missing for too long.

    The first may take ``first_seconds``, each further one ``silence_seconds``. What counts is
    pieces: a server that only says that it is still there is silent. However it ends, ``pieces``
    is closed before it does.
    """
    allowed, first = first_seconds, True
    async with aclosing(pieces):
        while True:
            limit = asyncio.timeout(allowed)
            try:
                async with limit:
                    piece = await anext(pieces, None)
            except TimeoutError:
                if not limit.expired():  # the model's own error, and a bug there
                    raise
                raise ModelFailed(
                    "model_timeout", f"The model sent nothing for {allowed:g} seconds", ails=first
                ) from None
            if piece is None:
                return
            allowed, first = silence_seconds, False
            yield piece


async def bounded(pieces: Pieces, *, max_characters: int) -> Pieces:
    """Pass a model's pieces on until they end or are too much.

    Raises AnswerFailed: ``answer_too_long`` when there is more text than ``max_characters`` code
    points, after exactly so many were passed on; ``model_cut_off`` when the pieces end without a
    Finished. Reasoning is not counted. However it ends, ``pieces`` is closed before it does.
    """
    room = max_characters
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Finished):
                yield piece
                return
            if isinstance(piece, Reasoning):
                yield piece
                continue
            if len(piece) > room:
                if room:
                    yield piece[:room]
                raise AnswerFailed(
                    "answer_too_long", "The answer was ended because it became too long"
                )
            room -= len(piece)
            yield piece
    raise AnswerFailed("model_cut_off", "The model's answer broke off")
