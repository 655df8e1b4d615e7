"""Cutting a growing text between its top-level blocks.

In CommonMark a block that was followed by another one at the top level never changes again; what
may still change is the last one: a paragraph becomes a heading by the line under it, a list stays
open over blank lines, a table begins by its second line. So everything before the last top-level
block is finished, and what the last one is, the parser itself is asked, about the open part alone.
Two things reach across blocks, link reference definitions and footnotes: those are left to the
rendering of the whole text.

The cuts depend on the text alone, not on the pieces that it came in. The parser is asked at a line
only where the line may begin a block: when it is whole, or at once where its first character
settles it, so that the paragraph before is not rendered again with every word of the next one.
Skipping a question can only join two blocks into one, which renders the same. That is also what
bounds the cost of a text in which no cut is ever found: after a question in vain the next one waits
until the open part has grown by a fixed fraction.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import Final, NamedTuple

_LIST_ITEM: Final = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_MAY_INTERRUPT: Final = re.compile(r"#{1,6}(?:[ \t]|$)|```|~~~|[-*_+<]|\d|>")
_FENCE: Final = re.compile(r"(`{3,})[^`]*$|(~{3,})")
_AMBIGUOUS: Final = " \t0123456789-*+<["
"""First characters of lines that may also go on with what is open, or that may show nothing."""
_PATIENCE: Final = 2048
"""Characters of an open part that is asked about at every line that may begin a block."""
_GROWTH: Final = 8
"""Beyond that, the open part has to grow by one part in this many between two questions."""


class Segment(NamedTuple):
    """A finished part of the text that holds one top-level block, at the least."""

    first_line: int
    """Counted from 1 in the whole text."""
    source: str


class Fence(NamedTuple):
    """A code block at the top level that is still open."""

    opening: str
    """Its first line, without the line's end."""
    lines: list[str]
    """Its content so far in whole lines, with their ends."""


class Splitter:
    """Takes a text piece by piece and gives the parts that are finished."""

    def __init__(self, starts: Callable[[str], list[int]]) -> None:
        """Take what tells at which lines the visible top-level blocks of a text begin."""
        self.open_characters = 0
        """Length of the open part."""
        self.fence: Fence | None = None
        """The open part as a code block, where it is one."""
        self.partial = ""
        """The last line, as long as its end is not there."""
        self._starts = starts
        self._lines: list[str] = []
        self._first_line = 1
        self._blank_before = False
        self._quote_before = False
        self._in_list = False
        self._is_visible = False
        self._ask_at = 0
        self._asked = False
        """Whether the line being taken has been asked about."""
        self._after_return = False

    @property
    def open_source(self) -> str:
        """The open part."""
        return "".join(self._lines) + self.partial

    @property
    def first_line(self) -> int:
        """The line of the whole text, from 1, at which the open part begins."""
        return self._first_line

    def append(self, piece: str) -> list[Segment]:
        """Take the next piece; give what it finished."""
        lines = (self.partial + self._unified(piece)).split("\n")
        self.open_characters -= len(self.partial)
        self.partial = ""
        finished: list[Segment] = []
        for line in lines[:-1]:
            self._line(line + "\n", finished)
        self.partial = lines[-1]
        self.open_characters += len(self.partial)
        if self._is_visible and not self._asked and self._surely_begins(self.partial):
            self._ask(self.partial, finished)
        return finished

    def _unified(self, piece: str) -> str:
        """Make every line end one line feed, also where a pair is cut between two pieces."""
        if not piece:
            return piece
        if self._after_return:
            piece = piece.removeprefix("\n")
            self._after_return = False
        if piece.endswith("\r"):
            self._after_return = True
        return unified(piece)

    def _line(self, line: str, finished: list[Segment]) -> None:
        text = line.rstrip("\n")
        if self.fence is None and self._is_visible and not self._asked and self._may_begin(text):
            self._ask(line, finished)
        self._asked = False
        self._lines.append(line)
        self.open_characters += len(line)
        if self.fence is not None:
            self._fence_line(self.fence, line, finished)
            return
        if not text.strip(" \t"):
            self._blank_before, self._quote_before = True, False
            return
        if not self._is_visible:
            self._begin(text)
        self._blank_before, self._quote_before = False, text.startswith(">")

    def _begin(self, text: str) -> None:
        self._is_visible = True
        self._in_list = _LIST_ITEM.match(text) is not None
        if _FENCE.match(text) is not None:
            self.fence = Fence(text, [])

    def _surely_begins(self, beginning: str) -> bool:
        """Say whether a line of which only this is known begins a block, unless in another one."""
        return (
            self.fence is None
            and self._blank_before
            and beginning != ""
            and beginning[0] not in _AMBIGUOUS
        )

    def _may_begin(self, text: str) -> bool:
        if not text or text[0] in " \t" or (self._in_list and _LIST_ITEM.match(text)):
            return False
        if self._quote_before and text.startswith(">"):
            return False
        return self._blank_before or _MAY_INTERRUPT.match(text) is not None

    def _ask(self, line: str, finished: list[Segment]) -> None:
        """Cut where ``line``, which comes next, and what is before it begin blocks."""
        self._asked = True
        before = sum(map(len, self._lines))
        if before < self._ask_at:
            return
        starts = self._starts("".join(self._lines) + line)
        if len(starts) < 2:  # noqa: PLR2004
            if before > _PATIENCE:
                self._ask_at = before + before // _GROWTH
            return
        lines, first = self._lines, self._first_line
        # What stands before the first visible block belongs to it.
        cuts = [1, *starts[1:]]
        for begin, end in pairwise(cuts):
            finished.append(Segment(first + begin - 1, "".join(lines[begin - 1 : end - 1])))
        self._restart(first + cuts[-1] - 1, lines[cuts[-1] - 1 :])
        if self._lines:
            self._is_visible = True
            self._in_list = _LIST_ITEM.match(self._lines[0]) is not None

    def _fence_line(self, fence: Fence, line: str, finished: list[Segment]) -> None:
        if not closes(fence.opening, line):
            fence.lines.append(line)
            return
        finished.append(Segment(self._first_line, "".join(self._lines)))
        self._restart(self._first_line + len(self._lines), [])

    def _restart(self, first_line: int, lines: list[str]) -> None:
        self._first_line = first_line
        self._lines = lines
        self.open_characters = sum(map(len, lines)) + len(self.partial)
        self.fence = None
        self._is_visible = self._in_list = self._blank_before = self._quote_before = False
        self._ask_at = 0


def unified(text: str) -> str:
    """Make every end of line a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def segment_at(first_lines: list[int], line: int) -> int:
    """Say to which segment a line belongs, by the segments' first lines in order."""
    return max(bisect_right(first_lines, line) - 1, 0)


def closes(opening: str, line: str) -> bool:
    """Say whether a line ends the code block that ``opening`` began.

    CommonMark 4.5: at most three spaces, at least as many of the same mark, nothing after.
    """
    mark = opening[0]
    length = len(opening) - len(opening.lstrip(mark))
    bare = line.rstrip(" \t\n")
    indent = len(bare) - len(bare.lstrip(" "))
    marks = bare[indent:]
    return indent <= 3 and len(marks) >= length and not marks.strip(mark)  # noqa: PLR2004
