"""Reasoning as the page shows it: plain text that grows by its end."""

from __future__ import annotations

from typing import Final

_RUN: Final = 240
"""Characters after which what stands there is left alone."""


class Thoughts:
    """Follows the reasoning of one answer.

    It is drawn in runs of 240 characters, of which only the last one changes: the cost of a piece
    does not grow with what came before it, and a run may be drawn twice.
    """

    def __init__(self, text: str = "") -> None:
        """Go on after ``text``, which is shown already."""
        self.characters = len(text)
        self._open = text[self.characters - self.characters % _RUN :]

    def append(self, piece: str) -> dict[int, str]:
        """Take the next piece; give the runs that are new or changed, by number, in order."""
        first = self.characters // _RUN
        runs = _cut(self._open + piece)
        self.characters += len(piece)
        self._open = runs[-1] if self.characters % _RUN else ""
        return dict(enumerate(runs, first))


def runs_of(text: str) -> dict[int, str]:
    """Give all runs of a text, by number, in order."""
    return dict(enumerate(_cut(text)))


def _cut(text: str) -> list[str]:
    return [text[at : at + _RUN] for at in range(0, len(text), _RUN)]
