"""What every model is to the rest of the program.

Codes of the AnswerFailed that a model raises, or what is around it:

======================  ==========================================================
``model_unreachable``    no connection to the model server came about
``model_unauthorized``   the server refused our key (401, 403)
``model_not_found``      the server does not know the model or the address (404)
``model_rate_limited``   the server takes no further question for now (429)
``model_error``          the server failed (5xx), or takes no such request (4xx)
``model_unreadable``     the server sent what nobody can read
``model_timeout``        nothing came for too long
``model_cut_off``        the connection was lost in the middle of the answer
``model_unended``        the stream ended without saying that the answer did
``model_refused``        the model, or a filter of its server, declined to answer
``model_unavailable``    it failed again and again, and is not asked for a while
``model_busy``           too many answers are being generated or waited for
``empty_answer``         the answer was complete and had no text
``answer_too_long``      the answer passed the length that the settings allow
======================  ==========================================================

No detail holds a key, an address, or words of the server's own: those may hold either.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from app.domain.errors import AnswerFailed
from app.domain.messages import Role, Usage

LENGTH = "length"
"""The finish reason of an answer that its server's limit cut short: it can be gone on with."""


class Turn(NamedTuple):
    """What one side said, as the model is told it."""

    role: Role
    content: str


class GenerationRequest(NamedTuple):
    """One attempt at an answer.

    ``turns`` has the oldest first and ends with the question; ``kept`` is the text that the
    answer has already, from an attempt before. ``user_id`` is whose question it is: where answers
    wait for each other, users take turns.
    """

    message_id: str
    session_id: str
    turns: Sequence[Turn]
    kept: str = ""
    user_id: str = ""


class Reasoning(NamedTuple):
    """What the model thinks before or between what it says: no part of the answer."""

    text: str


class Finished(NamedTuple):
    """The answer is whole; ``finish_reason`` is the server's word (``stop``, ``length``, …)."""

    usage: Usage | None
    finish_reason: str


Pieces: TypeAlias = AsyncGenerator[str | Reasoning | Finished, None]
"""Pieces of text, none of them empty and all of them storable, and one Finished as the last.

Joined, the str among them are the answer from the end of ``kept`` on. Consume them inside
``contextlib.aclosing``: a generator that is dropped goes on holding its connection until the
garbage collector finds it, and the server goes on generating.
"""


class ModelFailed(AnswerFailed):
    """A model's failure, with what the layers around a model go by.

    ``again``: another try may do better; ``after_seconds``: not before so long, as the server
    said; ``ails``: the server itself is in a bad way, whatever it was asked.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        again: bool = False,
        after_seconds: float | None = None,
        ails: bool = False,
    ) -> None:
        """Take the stable code and the sentence for a person, and see the class."""
        super().__init__(code, detail)
        self.again = again
        self.after_seconds = after_seconds
        self.ails = ails


class ModelClient(Protocol):
    """A model that answers; one client serves any number of answers at once."""

    @property
    def model_id(self) -> str:
        """What a message's ``model`` says, and what a request asks for."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def kind(self) -> str:
        """What it is: ``demo`` or ``openai_compatible``."""

    @property
    def continues(self) -> bool:
        """Whether it can ever go on after a text that it had begun."""

    async def continues_from(self, request: GenerationRequest) -> bool:
        """Whether it can go on right after this request's ``kept``; always so where it is empty.

        Where not, the answer is to be started over with an empty ``kept``. The first call may ask
        the server; one that does not say so cannot.
        """

    def generate(self, request: GenerationRequest) -> Pieces:
        """Answer the last turn, going on after ``kept``.

        Raises AnswerFailed with one of this module's codes, after any number of pieces, and
        ValueError for a ``kept`` that ``continues_from`` refuses. Closing the generator, or
        cancelling the task that waits for it, ends the work behind it at once.
        """

    async def close(self) -> None:
        """Let go of connections; answers still being generated fail."""
