"""Answers to measure with: Markdown without an end, in pieces of about a word."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

KINDS: Final = ("prose", "list", "code")
"""Paragraphs and headings; one list that never ends; one code block that never ends."""

_WORDS: Final = (
    "The keeper of the *old* lighthouse wrote down every ship that passed, its name, its flag and"
    " the hour, and in winter, when none came, he wrote down the weather with **great** care."
)
_SENTENCE: Final = tuple(_WORDS.split())
_CODE: Final = ("def", " ship(name):", "\n    return", " watch(name,", " hour=7)", "\n\n")


def pieces(kind: str) -> Iterator[str]:
    """Give the pieces of an endless answer of that kind."""
    match kind:
        case "prose":
            return _prose()
        case "list":
            return _list()
        case "code":
            return itertools.chain(("```python\n",), itertools.cycle(_CODE))
        case _:
            raise ValueError(f"{kind} is none of {', '.join(KINDS)}")


def _prose() -> Iterator[str]:
    for paragraph in itertools.count(1):
        if paragraph % 8 == 1:
            yield f"## Part {paragraph // 8 + 1}\n\n"
        for word in _SENTENCE:
            yield f"{word} "
        yield "\n\n"


def _list() -> Iterator[str]:
    for item in itertools.count():
        yield "- " if item % 3 == 0 else "  - "
        for word in _SENTENCE[:12]:
            yield f"{word} "
        yield "\n"
