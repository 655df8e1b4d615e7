"""A generation worker whose model writes the time at which each piece was made."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import uvloop

from app.config import Settings
from app.models.client import Finished, GenerationRequest, Pieces
from app.models.registry import ModelRegistry
from app.telemetry import configure_logging
from workers.__main__ import generate


class ClockModel:
    """Answers «N DELAY_MS» with N pieces, each the Unix time in µs at which it was made.

    Takes the demo model's place, so that the web node needs to know nothing of it.
    """

    model_id: Final = "demo"
    name: Final = "Clock"
    kind: Final = "demo"
    continues: Final = False

    async def continues_from(self, request: GenerationRequest) -> bool:
        """Never: no two answers are the same."""
        return not request.kept

    async def generate(self, request: GenerationRequest) -> Pieces:
        """Write at an even pace, however long each write takes."""
        count, delay_ms = request.turns[-1].content.split()
        pause = float(delay_ms) / 1000
        loop = asyncio.get_running_loop()
        due = loop.time()
        for _ in range(int(count)):
            yield f" {time.time_ns() // 1000}"
            due += pause
            await asyncio.sleep(max(due - loop.time(), 0))
        yield Finished(None, "stop")

    async def close(self) -> None:
        """Nothing is held."""


def main() -> None:
    """Work until SIGTERM."""
    settings = Settings()
    configure_logging(environment=settings.environment, level=settings.log_level)
    models = ModelRegistry([ClockModel()], default="demo")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(generate(settings, models))


if __name__ == "__main__":
    main()
