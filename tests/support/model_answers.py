"""An answer of a model server, as far as it got."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from app.domain.errors import AnswerFailed
from app.domain.messages import Role
from app.models.circuit import Circuit
from app.models.client import Finished, GenerationRequest, ModelClient, Reasoning, Turn
from app.models.guarded import GuardedModel, Patience
from app.models.openai_compatible import OpenAICompatibleModel
from app.models.room import Room
from tests.support.llama import MODEL_NAME

KEY = "sk-a-key-that-nobody-must-see"


@asynccontextmanager
async def model_at(
    base_url: str,
    *,
    api_key: str | None = KEY,
    connect_seconds: float = 5,
    first_seconds: float = 60,
    silence_seconds: float = 60,
    retries: int = 0,
    retry_after_seconds: float = 10,
    context_tokens: int = 4096,
    continues: bool | None = None,
    system_prompt: str | None = None,
    circuit_failures: int = 1000,
) -> AsyncIterator[GuardedModel]:
    """Give the model of a server as the product builds it, with hardly a pause between tries."""
    model = OpenAICompatibleModel(
        base_url=base_url,
        api_key=api_key,
        model=MODEL_NAME,
        connect_seconds=connect_seconds,
        context_tokens=context_tokens,
        continues=continues,
        system_prompt=system_prompt,
    )
    guarded = GuardedModel(
        model,
        circuit=Circuit(failures=circuit_failures, seconds=60),
        room=Room(places=10, wait_seconds=5),
        patience=Patience(
            first_seconds=first_seconds,
            silence_seconds=silence_seconds,
            retries=retries,
            retry_after_seconds=retry_after_seconds,
            pause_seconds=0.01,
        ),
    )
    try:
        yield guarded
    finally:
        await guarded.close()


def asking(question: str, *before: Turn, kept: str = "") -> GenerationRequest:
    """Ask something, perhaps after a conversation."""
    return GenerationRequest("m-1", "s-1", [*before, Turn(Role.USER, question)], kept)


class Outcome:
    """An answer as far as it got."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.thoughts: list[str] = []
        self.finished: Finished | None = None
        self.failure: AnswerFailed | None = None

    @property
    def text(self) -> str:
        """What was said."""
        return "".join(self.pieces)

    @property
    def code(self) -> str | None:
        """Why it failed."""
        return self.failure.answer_code if self.failure else None


async def answer(model: ModelClient, request: GenerationRequest) -> Outcome:
    """Read an answer to its end, and check what every answer keeps to."""
    outcome = Outcome()
    try:
        async with aclosing(model.generate(request)) as pieces:
            async for piece in pieces:
                assert outcome.finished is None, "something came after the end"
                match piece:
                    case Finished():
                        outcome.finished = piece
                    case Reasoning():
                        assert piece.text, "an empty thought"
                        outcome.thoughts.append(piece.text)
                    case _:
                        assert piece, "an empty piece"
                        outcome.pieces.append(piece)
    except AnswerFailed as failure:
        outcome.failure = failure
    assert (outcome.finished is None) != (outcome.failure is None)
    return outcome
