"""What the demo model says to a question, and where it falters: decided before the first word.

=================================  =======================================================
``/echo TEXT``                      TEXT, byte for byte, word by word
``/count N [DELAY_MS]``             the words ``1 2 … N``, one piece each
``/markdown``                       a page that uses every construct
``/think M N [DELAY_MS]``           M words of reasoning, then the words ``1 2 … N``
``/fail AFTER_CHUNKS``              so many pieces, then ``model_error``
``/stall AFTER_CHUNKS SECONDS``     so many pieces, then a silence, then the rest
=================================  =======================================================

A command with other arguments, ``/help`` and a command that does not exist are answered with how
to use them. Everything else gets a canned answer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from app.models.client import Reasoning
from app.models.demo.canned import CannedAnswers

COUNT_MAX: Final = 100_000
DELAY_MAX_MS: Final = 60_000
CHUNKS_MAX: Final = 10_000
STALL_MAX_SECONDS: Final = 3600

# A word with the space before it; a long run of letters in parts, as a real model would send it.
_PIECE = re.compile(r"\s*\S{1,24}|\s+")
_COMMAND = re.compile(r"/([a-z]+)(?:\s(.*))?", re.DOTALL)
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,3})?", re.ASCII)

_FILLER = "These words are here because somebody asked for them and for what comes after them."
_PIECES_AFTER_STALL = 16

_USAGE: Final = {
    "echo": ("/echo TEXT", "repeats the text, word by word"),
    "count": (
        "/count N [DELAY_MS]",
        f"counts to N (0 to {COUNT_MAX}), with a pause of 0 to {DELAY_MAX_MS} ms before each word",
    ),
    "markdown": ("/markdown", "shows a page that uses every construct"),
    "think": (
        "/think M N [DELAY_MS]",
        f"thinks M words, then counts to N, with a pause of 0 to {DELAY_MAX_MS} ms before each",
    ),
    "fail": ("/fail AFTER_CHUNKS", f"fails after 0 to {CHUNKS_MAX} pieces"),
    "stall": (
        "/stall AFTER_CHUNKS SECONDS",
        f"is silent for 0 to {STALL_MAX_SECONDS} seconds after 0 to {CHUNKS_MAX} pieces",
    ),
}


class Stall(NamedTuple):
    """A silence between two pieces."""

    seconds: float


class Failure(NamedTuple):
    """Where the answer fails; nothing follows it."""

    after_pieces: int


class Script(NamedTuple):
    """An answer in order; ``delay_ms`` None is the model's own pace."""

    steps: Sequence[str | Reasoning | Stall | Failure]
    delay_ms: int | None = None

    @property
    def text(self) -> str:
        """All that will be said."""
        return "".join(step for step in self.steps if isinstance(step, str))


def pieces_of(text: str) -> list[str]:
    """Cut a text into pieces that give it back when joined."""
    return _PIECE.findall(text)


def script_for(question: str, answers: CannedAnswers) -> Script:
    """Decide the whole answer to a question; the same question always gets the same one."""
    command = _COMMAND.fullmatch(question)
    if command is None:
        return Script(pieces_of(answers.answer(question)))
    name, rest = command[1], command[2] or ""
    steps: Sequence[str | Reasoning | Stall | Failure]
    delay_ms = None
    match name, *rest.split():
        case ["echo", _, *_]:
            steps = pieces_of(rest)
        case ["count", count] if _is_whole(count, COUNT_MAX):
            steps = _counted(int(count))
        case ["count", count, delay] if _is_whole(count, COUNT_MAX) and _is_whole(
            delay, DELAY_MAX_MS
        ):
            steps, delay_ms = _counted(int(count)), int(delay)
        case ["think", thoughts, count, *delay] if (
            _is_whole(thoughts, COUNT_MAX)
            and _is_whole(count, COUNT_MAX)
            and (not delay or (len(delay) == 1 and _is_whole(delay[0], DELAY_MAX_MS)))
        ):
            steps = [*map(Reasoning, _filler(int(thoughts))), *_counted(int(count))]
            delay_ms = int(delay[0]) if delay else None
        case ["markdown"]:
            steps = pieces_of(answers.named("markdown"))
        case ["fail", after] if _is_whole(after, CHUNKS_MAX):
            steps = [*_filler(int(after)), Failure(int(after))]
        case ["stall", after, seconds] if _is_whole(after, CHUNKS_MAX) and _is_seconds(seconds):
            words = _filler(int(after) + _PIECES_AFTER_STALL)
            steps = [*words[: int(after)], Stall(float(seconds)), *words[int(after) :]]
        case _:
            steps = pieces_of(_usage(name))
    return Script(steps, delay_ms)


def _is_whole(argument: str, maximum: int) -> bool:
    return _WHOLE_NUMBER.fullmatch(argument) is not None and int(argument) <= maximum


def _is_seconds(argument: str) -> bool:
    return _SECONDS.fullmatch(argument) is not None and float(argument) <= STALL_MAX_SECONDS


def _counted(count: int) -> list[str]:
    return ["1", *(f" {number}" for number in range(2, count + 1))] if count else []


def _filler(count: int) -> list[str]:
    words = itertools.islice(itertools.cycle(_FILLER.split()), count)
    return [f" {word}" if index else word for index, word in enumerate(words)]


def _usage(name: str) -> str:
    if name in _USAGE:
        form, effect = _USAGE[name]
        return f"I cannot follow that command with these arguments.\n\n`{form}` {effect}."
    rows = "\n".join(f"| `{form}` | {effect} |" for form, effect in _USAGE.values())
    return (
        f"These are the commands that I obey:\n\n| Command | What it does |\n| --- | --- |\n{rows}"
    )
