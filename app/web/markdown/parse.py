"""From Markdown to HTML that is not yet sanitised, in pieces that know where they came from."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import comrak

_TAG: Final = re.compile(r"<(/?)([a-z][a-z0-9]*)([^<>]*)>")
_LINES: Final = re.compile(r' data-sourcepos="(\d+):\d+-(\d+):')
_SOURCE: Final = re.compile(r' data-sourcepos="[\d:-]+"')
_VOID: Final = frozenset({"br", "hr", "img", "input"})

_MAX_DEPTH: Final = 100
"""Elements inside elements. A text that nests deeper costs a sanitiser, and a browser, the square
of its length, and says nothing to a reader."""


class TooDeepError(Exception):
    """The text nests deeper than anybody would read."""


class Piece(NamedTuple):
    """A top-level element, or raw HTML that stands between two as escaped text."""

    line: int | None
    """The line of the source that it begins at, from 1; None where the parser does not tell."""
    last_line: int
    """The line that it ends at; 0 where the parser does not tell."""
    tag: str
    html: str


class Parser:
    """CommonMark with GitHub's tables, strikethrough, task lists and bare addresses; footnotes.

    Raw HTML comes out escaped, and links to dangerous schemes without an address.
    """

    def __init__(self) -> None:
        """Choose the dialect."""
        self._extensions = comrak.ExtensionOptions()
        self._extensions.table = True
        self._extensions.strikethrough = True
        self._extensions.tasklist = True
        self._extensions.footnotes = True
        self._extensions.autolink = True
        self._parsing = comrak.ParseOptions()
        self._rendering = comrak.RenderOptions()
        self._rendering.escape = True
        self._rendering.sourcepos = True

    def pieces(self, source: str) -> list[Piece]:
        """Render ``source`` and cut it between its top-level elements; raise TooDeepError."""
        return _cut(
            comrak.render_markdown(source, self._extensions, self._parsing, self._rendering)
        )

    def starts(self, source: str) -> list[int]:
        """Give the lines, from 1, at which a cut leaves what stands on either side as it is.

        These are where the visible top-level blocks begin, but for a table right under a
        paragraph: on its own its first line might be something else. Raises TooDeepError.
        """
        starts: list[int] = []
        paragraph_end = 0
        for piece in self.pieces(source):
            is_under_paragraph = piece.tag == "table" and piece.line == paragraph_end + 1
            if piece.line is not None and piece.tag != "section" and not is_under_paragraph:
                starts.append(piece.line)
            paragraph_end = piece.last_line if piece.tag == "p" else 0
        return starts


def _cut(html: str) -> list[Piece]:
    # The parser escapes all that is not its own markup, in text and in attributes: each tag that
    # is found here is one of its own, and they are well formed.
    pieces: list[Piece] = []
    depth = begin = end = 0
    for found in _TAG.finditer(html):
        closing, tag, _ = found.groups()
        if depth == 0:
            _add_loose(pieces, html[end : found.start()])
            begin = found.start()
        if closing:
            depth -= 1
        elif tag not in _VOID:
            depth += 1
            if depth > _MAX_DEPTH:
                raise TooDeepError
        if depth == 0:
            end = found.end()
            pieces.append(_piece(html[begin:end]))
    _add_loose(pieces, html[end:])
    return pieces


def _piece(html: str) -> Piece:
    opening = _TAG.match(html)
    lines = _LINES.search(opening[3]) if opening else None
    return Piece(
        line=int(lines[1]) if lines else None,
        last_line=int(lines[2]) if lines else 0,
        tag=opening[2] if opening else "",
        html=_SOURCE.sub("", html),
    )


def _add_loose(pieces: list[Piece], text: str) -> None:
    if text.strip():
        pieces.append(Piece(None, 0, "", text.strip()))
