"""Markdown as sanitised HTML, block by block."""

from __future__ import annotations

import re
from collections import OrderedDict
from html import escape, unescape
from typing import Final, NamedTuple

from app.web.markdown.code import Highlighter, code_block
from app.web.markdown.parse import Parser, Piece, TooDeepError
from app.web.markdown.sanitise import Sanitiser
from app.web.markdown.split import Splitter, segment_at, unified
from app.web.markdown.stream import MarkdownStream

_CODE: Final = re.compile(r'<pre><code(?: class="language-([^"]*)")?>(.*?)</code></pre>', re.DOTALL)
_ONLY_ENDS: Final = re.compile(r"(?:</[a-z0-9]+>|\s)*")
_CLEAN_CODE: Final = re.compile(r"<pre><code>(.*?)</code></pre>", re.DOTALL)
_HEADING: Final = re.compile(r"<(/?)h([1-6])>")
_IMAGE: Final = re.compile(r'<img src="([^"]*)" alt="([^"]*)"(?: title="[^"]*")? />')
_ABROAD: Final = re.compile(r'<a (?=href="(?:https?|mailto):)', re.IGNORECASE)
_TASK: Final = re.compile(r'<li><input type="checkbox"( checked="")? disabled="" />')
_TASK_PARAGRAPH: Final = re.compile(r'<li>\n<p><input type="checkbox"( checked="")? disabled="" />')

_KEPT_CHARACTERS: Final = 4_000_000
"""Characters of source and HTML that the renderings kept for the next page may have together."""


class Block(NamedTuple):
    """One numbered part of a text; numbers without anything to see are left out."""

    number: int
    html: str


class Markdown:
    """Renders texts; keeps the newest renderings of whole ones, since pages show them again."""

    def __init__(self) -> None:
        """Start with nothing kept."""
        self._parser = Parser()
        self._highlighter = Highlighter()
        self._kept: OrderedDict[tuple[str, str], tuple[Block, ...]] = OrderedDict()
        self._kept_characters = 0

    def document(self, text: str, prefix: str) -> tuple[Block, ...]:
        """Render a whole text, references and footnotes included.

        ``prefix`` begins the ids of its footnotes. The numbers are those of ``stream``; footnotes
        come as one more block.
        """
        key = (prefix, text)
        blocks = self._kept.get(key)
        if blocks is None:
            blocks = self._kept[key] = self._document(text, prefix)
            self._kept_characters += _characters(key, blocks)
            while self._kept_characters > _KEPT_CHARACTERS:
                oldest, dropped = self._kept.popitem(last=False)
                self._kept_characters -= _characters(oldest, dropped)
        else:
            self._kept.move_to_end(key)
        return blocks

    def stream(self, prefix: str) -> MarkdownStream:
        """Begin to follow a text that is still growing."""
        return MarkdownStream(Fragments(self._parser, self._highlighter, prefix), prefix)

    def _document(self, text: str, prefix: str) -> tuple[Block, ...]:
        fragments = Fragments(self._parser, self._highlighter, prefix)
        splitter = Splitter(fragments.starts)
        first_lines = [segment.first_line for segment in splitter.append(text)]
        first_lines.append(splitter.first_line)
        source = unified(text)
        groups: list[list[Piece]] = [[] for _ in range(len(first_lines) + 1)]
        at = 0
        try:
            pieces = self._parser.pieces(source)
        except TooDeepError:
            return (Block(0, fragments.plain(source)),)
        for piece in pieces:
            if piece.tag == "section":
                at = len(first_lines)
            elif piece.line is not None:
                at = segment_at(first_lines, piece.line)
            groups[at].append(piece)
            if piece.tag == "pre":
                # A closed fence ends its segment: raw HTML after it, whose line is not told, is
                # in the next one.
                at = segment_at(first_lines, piece.last_line + 1)
        blocks = (
            Block(number, fragments.html(group, growing=False))
            for number, group in enumerate(groups)
        )
        return tuple(block for block in blocks if block.html)


class Fragments:
    """Renders parts of one text."""

    def __init__(self, parser: Parser, highlighter: Highlighter, prefix: str) -> None:
        """Take the prefix of the ids in it."""
        self._parser = parser
        self._highlighter = highlighter
        self._sanitiser = Sanitiser(prefix)

    def starts(self, source: str) -> list[int]:
        """Give the lines at which top-level blocks begin; none where the text nests too deep."""
        try:
            return self._parser.starts(source)
        except TooDeepError:
            return []

    def part(self, source: str, *, growing: bool) -> str:
        """Render a part on its own; code at the very end of a growing one stays plain."""
        try:
            pieces = self._parser.pieces(source)
        except TooDeepError:
            return self.plain(source)
        return self.html(pieces, growing=growing)

    def html(self, pieces: list[Piece], *, growing: bool) -> str:
        """Make parsed pieces what a reader sees."""
        html = "\n".join(
            piece.html if piece.tag else f'<p class="raw">{piece.html}</p>' for piece in pieces
        )
        clean = self._sanitiser.clean(self._finish(html, growing=growing))
        # After the allow-list, which has no buttons: an answer must not be able to make one.
        return _CLEAN_CODE.sub(lambda found: code_block(found[1]), clean)

    def plain(self, source: str) -> str:
        """Show a text as it is."""
        return self._sanitiser.clean(f'<p class="raw">{escape(source)}</p>')

    def code(self, language: str, code: str) -> str:
        """Colour a part of a code block."""
        return self._sanitiser.clean(self._highlighter.html(language, code))

    def language(self, opening: str) -> str:
        """Say what language a fence's first line names."""
        found = _CODE.search(self._parser.pieces(opening)[0].html)
        return _language(found[1]) if found else ""

    def _finish(self, html: str, *, growing: bool) -> str:
        def code(found: re.Match[str]) -> str:
            text = unescape(found[2])
            if growing and _ONLY_ENDS.fullmatch(html, found.end()):
                coloured = escape(text)
            else:
                coloured = self._highlighter.html(_language(found[1]), text)
            return f"<pre><code>{coloured}</code></pre>"

        html = _TASK.sub(_task, html)
        html = _TASK_PARAGRAPH.sub(_task_paragraph, html)
        html = _IMAGE.sub(_image, html)
        html = _HEADING.sub(_heading, html)
        html = _ABROAD.sub('<a target="_blank" ', html)
        html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>')
        html = html.replace("</table>", "</table></div>")
        # Last, since everything in it is text.
        return _CODE.sub(code, html)


def _language(info: str | None) -> str:
    return unescape(info or "")


def _heading(found: re.Match[str]) -> str:
    # The page has a first heading, and every message a second.
    return f"<{found[1]}h{min(int(found[2]) + 2, 6)}>"


def _image(found: re.Match[str]) -> str:
    # Loading it would tell another host who reads this, and when.
    return f'<a href="{found[1]}">{found[2] or "Image"}</a>'


def _box(found: re.Match[str]) -> str:
    kind, label = ("box done", "Done") if found[1] else ("box", "Not done")
    return f'<span class="{kind}" role="img" aria-label="{label}"></span>'


def _task(found: re.Match[str]) -> str:
    return f'<li class="task">{_box(found)}'


def _task_paragraph(found: re.Match[str]) -> str:
    return f'<li class="task">\n<p>{_box(found)}'


def _characters(key: tuple[str, str], blocks: tuple[Block, ...]) -> int:
    return len(key[1]) + sum(len(block.html) for block in blocks)
