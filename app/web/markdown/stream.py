"""Markdown that is still being written: what has to change on the page, piece by piece."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from app.web.markdown.code import code_block
from app.web.markdown.split import Fence, Splitter, closes

_EAGER: Final = 8192
"""Characters of an open block that is rendered again with every piece."""
_GROWTH: Final = 32
"""A longer one is rendered again once it has grown by one part in this many."""
_RUN: Final = 1000
"""Characters of open code, in whole lines, after which what stands there is left alone."""


class Change(NamedTuple):
    """A block, or a run of a block that is open code, has this HTML now."""

    block: int
    run: int | None
    """Which part of the code, in ``run_id``; None for all of the block."""
    html: str


class Renders(Protocol):
    """What renders the parts of one text."""

    def starts(self, source: str) -> list[int]:
        """Give the lines at which the visible top-level blocks begin."""
        ...

    def part(self, source: str, *, growing: bool) -> str:
        """Render Markdown."""
        ...

    def code(self, language: str, code: str) -> str:
        """Render a part of a code block."""
        ...

    def language(self, opening: str) -> str:
        """Say what language a fence's first line names."""
        ...


class MarkdownStream:
    """Follows a growing text.

    The cost of a piece does not grow with the text: finished blocks are never looked at again, an
    open block of up to 8192 characters is rendered again, a longer one only as often as makes the
    work per character constant, and open code is rendered in runs of about 1000 characters, of
    which only the last one changes. A finished block is rendered once more, alone and for good.
    """

    def __init__(self, fragments: Renders, prefix: str) -> None:
        """Take what renders the parts, and what ids begin with."""
        self._fragments = fragments
        self._prefix = prefix
        self._splitter = Splitter(fragments.starts)
        self._number = 0
        self._shown = ""
        self._rendered_characters = 0
        self._code: _OpenCode | None = None

    def skip(self, text: str) -> None:
        """Take a part of the text that is shown already."""
        finished = self._splitter.append(text)
        self._number += len(finished)
        if finished:
            self._restart()

    def append(self, piece: str) -> list[Change]:
        """Take the next piece; give what changed, each block or run at most once, in order."""
        changes: list[Change] = []
        for segment in self._splitter.append(piece):
            html = self._fragments.part(segment.source, growing=False)
            changes.append(Change(self._number, None, html))
            self._number += 1
            self._restart()
        fence = self._splitter.fence
        if fence is None:
            self._open_part(changes)
        else:
            self._open_code(fence, changes)
        return changes

    def _open_part(self, changes: list[Change]) -> None:
        characters = self._splitter.open_characters
        if characters > _EAGER and characters < self._due():
            return
        self._rendered_characters = characters
        html = self._fragments.part(self._splitter.open_source, growing=True)
        if html != self._shown:
            self._shown = html
            changes.append(Change(self._number, None, html))

    def _open_code(self, fence: Fence, changes: list[Change]) -> None:
        partial = self._splitter.partial
        if self._code is None:
            self._code = _OpenCode(self._fragments, fence)
            runs = self._code.take(partial)
            html = "".join(
                code_run(self._prefix, Change(self._number, number, html)) for number, html in runs
            )
            changes.append(Change(self._number, None, code_block(html)))
            return
        changes += [Change(self._number, number, html) for number, html in self._code.take(partial)]

    def _due(self) -> int:
        return self._rendered_characters + self._rendered_characters // _GROWTH

    def _restart(self) -> None:
        self._shown = ""
        self._rendered_characters = 0
        self._code = None


class _OpenCode:
    """A code block that is still open: runs of lines, of which the last one grows."""

    def __init__(self, fragments: Renders, fence: Fence) -> None:
        self._fragments = fragments
        self._fence = fence
        self._language = fragments.language(fence.opening)
        self._taken = 0
        self._number = 0
        self._lines: list[str] = []
        self._characters = 0
        self._coloured = ""
        self._shown: str | None = None
        self._rendered_partial = 0

    def take(self, partial: str) -> list[tuple[int, str]]:
        """Give the runs that are new or changed, with ``partial`` as the line being written."""
        runs: list[tuple[int, str]] = []
        if closes(self._fence.opening, partial):
            partial = ""
        lines = self._fence.lines[self._taken :]
        self._taken += len(lines)
        for line in lines:
            self._lines.append(line)
            self._characters += len(line)
            if self._characters >= _RUN:
                runs.append((self._number, self._colour()))
                self._next_run()
        if lines:
            self._coloured = self._colour()
        elif len(partial) > _EAGER and len(partial) < self._due():
            return runs
        self._rendered_partial = len(partial)
        # The line being written gets its colours once it is whole.
        html = self._coloured + self._fragments.code("", partial)
        if html != self._shown:
            self._shown = html
            runs.append((self._number, html))
        return runs

    def _colour(self) -> str:
        return self._fragments.code(self._language, "".join(self._lines))

    def _due(self) -> int:
        return self._rendered_partial + self._rendered_partial // _GROWTH

    def _next_run(self) -> None:
        self._number += 1
        self._lines = []
        self._characters = 0
        self._coloured = ""
        self._shown = None


def code_run(prefix: str, change: Change) -> str:
    """Write one run of open code."""
    return f'<span id="{prefix}b{change.block}-r{change.run}">{change.html}</span>'
