"""Reading the project's own Markdown: tables, code, links and headings, as far as we use them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

_LATER = "Not in this version"
_FENCE = re.compile(r"^(```.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_CELL_END = re.compile(r"(?<!\\)\|")

Table = list[list[str]]
"""Rows of cells, the head first; what separates head and body is left out."""


class Document:
    """One Markdown file."""

    def __init__(self, path: Path) -> None:
        """Read a file of the repository."""
        self.path = path
        self.text = path.read_text("utf-8")
        self.prose = _FENCE.sub("", self.text)
        """The text without its code blocks."""

    def __repr__(self) -> str:
        """Name it as a test's parameter."""
        return str(self.path.relative_to(ROOT))

    @property
    def spans(self) -> list[str]:
        """What stands in backquotes."""
        return _SPAN.findall(self.prose)

    @property
    def blocks(self) -> list[str]:
        """The code blocks, without their fences."""
        return [block.partition("\n")[2] for block in _FENCE.findall(self.text)]

    @property
    def links(self) -> list[str]:
        """The targets of links and pictures."""
        return [link or picture for link, picture in _LINK.findall(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """What a link into this document may name after its ``#``, made as GitHub makes it."""
        plain = [_SPAN.sub(r"\1", title) for _, title in _HEADING.findall(self.prose)]
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}

    def section(self, title: str) -> Document:
        """Give the part under the heading that has ``title`` in it, deeper headings included."""
        for found in _HEADING.finditer(self.text):
            if title in found[2]:
                level = len(found[1])
                rest = self.text[found.end() :]
                end = re.search(rf"^#{{1,{level}}} ", rest, re.MULTILINE)
                return _part(self.path, rest[: end.start()] if end else rest)
        raise AssertionError(f"{self!r} has no heading with «{title}»")

    def without(self, title: str) -> Document:
        """Give the document without the part under the heading that has ``title`` in it."""
        return _part(self.path, self.text.replace(self.section(title).text, "\n"))

    def table(self, *head: str) -> Table:
        """Give the body of all tables whose head begins with these cells; there must be one."""
        rows = [
            row for table in self._tables() if table[0][: len(head)] == [*head] for row in table[1:]
        ]
        assert rows, f"{self!r} has no table that begins with {head}"
        return rows

    def _tables(self) -> list[Table]:
        tables: list[Table] = []
        inside = False
        for line in self.prose.splitlines():
            if not line.startswith("|"):
                inside = False
                continue
            cells = [cell.strip() for cell in _CELL_END.split(line)[1:-1]]
            if not inside:
                tables.append([])
                inside = True
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                tables[-1].append(cells)
        return tables


def _part(path: Path, text: str) -> Document:
    part = Document.__new__(Document)
    part.path = path
    part.text = text
    part.prose = _FENCE.sub("", text)
    return part


def spans_of(cell: str) -> list[str]:
    """Give what stands in backquotes in a cell."""
    return _SPAN.findall(cell)


def fields_of(written: str) -> list[str]:
    """Read ``{message_id, attempt, usage?}``, what is nested left out."""
    inner = written[written.index("{") + 1 : written.rindex("}")]
    flat = re.sub(r"\{[^{}]*\}", "", inner)
    return [
        re.split(r"[?:]", part)[0].strip().strip('"') for part in flat.split(",") if part.strip()
    ]


def documents() -> list[Document]:
    """Give every document of the repository."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [Document(path) for path in sorted(files)]


def present_documents() -> list[Document]:
    """Give what the documents say of this version, and not of those before or after it."""
    return [
        one.without(_LATER) if f" {_LATER}\n" in one.text else one
        for one in documents()
        if one.path.name != "CHANGELOG.md"
    ]
