"""A generation worker whose model writes Markdown of a kind, with the time in it where asked to."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Final

import uvloop

from app.config import Settings
from app.models.client import Finished, GenerationRequest, Pieces
from app.models.registry import ModelRegistry
from app.telemetry import configure_logging
from benchmarks.texts import pieces
from workers.__main__ import generate

_READY_AT_ONCE: Final = 20


class PageModel:
    """Answers «KIND READY MORE DELAY_MS» with Markdown of a kind of ``benchmarks.texts``.

    READY pieces come at once, MORE after them at an even pace. Of the kind ``clock`` each piece is
    the Unix time in µs at which it was made, in paragraphs of 40.
    """

    model_id: Final = "demo"
    name: Final = "Page"
    kind: Final = "demo"
    continues: Final = False

    async def continues_from(self, request: GenerationRequest) -> bool:
        """Never: no two answers are the same."""
        return not request.kept

    async def generate(self, request: GenerationRequest) -> Pieces:
        """Write at an even pace, however long each write takes."""
        kind, ready, more, delay_ms = request.turns[-1].content.split()
        text = _clock() if kind == "clock" else pieces(kind)
        left = int(ready)
        while left > 0:
            yield "".join(itertools.islice(text, min(left, _READY_AT_ONCE)))
            left -= _READY_AT_ONCE
        pause = float(delay_ms) / 1000
        loop = asyncio.get_running_loop()
        due = loop.time()
        for piece in itertools.islice(text, int(more)):
            yield piece
            due += pause
            await asyncio.sleep(max(due - loop.time(), 0))
        yield Finished(None, "stop")

    async def close(self) -> None:
        """Nothing is held."""


def _clock() -> Iterator[str]:
    for number in itertools.count(1):
        yield f"t{time.time_ns() // 1000}" + ("\n\n" if number % 40 == 0 else " ")


def main() -> None:
    """Work until SIGTERM."""
    settings = Settings()
    configure_logging(environment=settings.environment, level=settings.log_level)
    models = ModelRegistry([PageModel()], default="demo")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(generate(settings, models))


if __name__ == "__main__":
    main()
