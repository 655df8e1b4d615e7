"""Thoughts that a model writes into its answer, told apart from what it says."""

from __future__ import annotations

from typing import Final

from app.models.client import Reasoning

_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"


class ThoughtSplitter:
    """Takes a leading ``<think>…</think>`` out of a streamed answer.

    Only at the very start, white space before it aside: anywhere else the tag is text that a
    person may have asked for. The white space between the thoughts and the answer belongs to
    neither.
    """

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"  # start, thinking, between, answer

    def feed(self, piece: str) -> list[str | Reasoning]:
        """Give what can be told of the text so far, none of it empty."""
        if self._state == "answer":
            return [piece]
        self._held += piece
        told: list[str | Reasoning] = []
        if self._state == "start":
            begun = self._held.lstrip()
            if begun.startswith(_OPEN):
                self._state, self._held = "thinking", begun[len(_OPEN) :]
            elif not _OPEN.startswith(begun):
                return self.end()
        if self._state == "thinking":
            thought, closed, after = self._held.partition(_CLOSE)
            # The end may be the first half of the closing tag.
            keep = 0 if closed else _overlap(thought, _CLOSE)
            self._held = after if closed else thought[len(thought) - keep :]
            if thought := thought[: len(thought) - keep]:
                told.append(Reasoning(thought))
            if closed:
                self._state = "between"
        if self._state == "between":
            self._held = self._held.lstrip()
            if self._held:
                told += self.end()
        return told

    def end(self) -> list[str | Reasoning]:
        """Give what was held back; from here on everything is the answer."""
        held, self._held = self._held, ""
        thinking, self._state = self._state == "thinking", "answer"
        if not held:
            return []
        return [Reasoning(held) if thinking else held]


def _overlap(text: str, tag: str) -> int:
    """Give the length of the longest end of ``text`` that begins ``tag``."""
    return next(
        (size for size in range(min(len(text), len(tag)), 0, -1) if tag.startswith(text[-size:])), 0
    )
