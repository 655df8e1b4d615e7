"""The demo model as a ModelClient."""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from app.domain.errors import AnswerFailed
from app.domain.messages import Usage, storable
from app.models.client import Finished, GenerationRequest, Pieces, Reasoning
from app.models.demo.canned import CannedAnswers
from app.models.demo.script import Failure, Script, Stall, pieces_of, script_for

DEMO_MODEL_ID: Final = "demo"


class DemoModel:
    """Answers from prepared texts, at ``delay_ms`` a piece, give or take two fifths.

    Its usage counts pieces for tokens. It can go on from any offset, in the middle of a piece too.
    """

    model_id: Final = DEMO_MODEL_ID
    name: Final = "Demo"
    kind: Final = "demo"
    continues: Final = True

    def __init__(self, *, delay_ms: int) -> None:
        self._delay_ms = delay_ms
        self._answers = CannedAnswers()

    async def continues_from(self, request: GenerationRequest) -> bool:
        """Whether ``kept`` begins what it says to this question."""
        return not request.kept or self._script(request).text.startswith(request.kept)

    async def generate(self, request: GenerationRequest) -> Pieces:
        """See ModelClient.generate."""
        script = self._script(request)
        if not script.text.startswith(request.kept):
            raise ValueError("the demo model says something else to this question")
        to_skip = len(request.kept)
        said = 0
        for step in script.steps:
            match step:
                case Stall():
                    # One that lies before the end of what was kept is over and done with.
                    if not to_skip:
                        await asyncio.sleep(step.seconds)
                case Failure():
                    raise AnswerFailed(
                        "model_error",
                        f"The demo model failed after {step.after_pieces} pieces, as it was asked",
                    )
                case Reasoning():
                    said += 1
                    # What was begun is past its thoughts.
                    if not request.kept:
                        await asyncio.sleep(self._delay_seconds(script, said))
                        yield step
                case str():
                    said += 1
                    if to_skip >= len(step):
                        to_skip -= len(step)
                        continue
                    await asyncio.sleep(self._delay_seconds(script, said))
                    yield step[to_skip:]
                    to_skip = 0
        asked = sum(len(pieces_of(turn.content)) for turn in request.turns)
        yield Finished(Usage(prompt_tokens=asked, completion_tokens=said), "stop")

    async def close(self) -> None:
        """Nothing is held."""

    def _script(self, request: GenerationRequest) -> Script:
        return script_for(storable(request.turns[-1].content), self._answers)

    def _delay_seconds(self, script: Script, index: int) -> float:
        if script.delay_ms is not None:
            return script.delay_ms / 1000
        # Even steps look mechanical, and chance would make two runs differ.
        jitter = zlib.crc32(index.to_bytes(4)) % 801 - 400
        return self._delay_ms * (1000 + jitter) / 1_000_000
