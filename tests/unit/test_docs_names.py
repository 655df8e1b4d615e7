"""What the documents name is there: files, functions, identifiers, metrics, targets, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.telemetry import create_metrics
from tests.support.documents import ROOT, Document, documents, present_documents
from tests.support.sources import classes, product_sources, sources

README = Document(ROOT / "README.md")

_FILE = re.compile(r"[\w./-]*\w\.(?:py|lua|md|toml|sh|html|css|js|yaml)(?=$|:)")
_NAME = re.compile(r"_?[a-z][a-z0-9]*(?:_[a-z0-9]+)+|[A-Z]+(?:_[A-Z]+)+|[A-Z]\w+[a-z]\w*")
_METRIC = re.compile(r"throughline_[a-z_]*[a-z]$")
_MEMBER = re.compile(r"([A-Z]\w+)\.(\w+)")
_CALLED = re.compile(r"(\S+\.py): (\w+)")


class TestNames:
    """A document that names what is not there is older than the code."""

    @pytest.mark.parametrize("document", present_documents(), ids=repr)
    def test_every_file_that_is_named_exists(self, document: Document) -> None:
        present = {path.name for path in sources()} | {
            path.name for path in [*ROOT.iterdir(), *(ROOT / "docs").rglob("*")]
        }
        missing = [
            written
            for span in document.spans
            if (found := _FILE.match(span)) is not None
            if not _exists(document, written := found[0], present)
        ]
        assert missing == []

    @pytest.mark.parametrize("document", present_documents(), ids=repr)
    def test_every_class_member_and_function_that_is_named_exists(self, document: Document) -> None:
        ours = classes()
        missing = []
        for span in document.spans:
            member = None if _FILE.match(span) else _MEMBER.fullmatch(span)
            if member is not None and member[2] not in ours.get(member[1], ()):
                missing.append(span)
            called = _CALLED.fullmatch(span)
            if called is not None and f"def {called[2]}(" not in (ROOT / called[1]).read_text():
                missing.append(span)
        assert missing == []

    @pytest.mark.parametrize("document", present_documents(), ids=repr)
    def test_every_identifier_that_is_named_is_in_the_code(self, document: Document) -> None:
        words = set(re.findall(r"\w+", "\n".join(product_sources().values())))
        named = {
            span for span in document.spans if _NAME.fullmatch(span) and _METRIC.match(span) is None
        }
        assert {one for one in named if one not in words and one.lower() not in words} == set()

    def test_every_metric_that_is_named_is_exposed(self) -> None:
        exposed = create_metrics().exposition()[0].decode()
        named = {span for one in present_documents() for span in one.spans if _METRIC.match(span)}
        assert named
        assert {name for name in named if f"# HELP {name} " not in exposed} == set()

    def test_every_target_that_is_named_is_one_of_the_makefile(self) -> None:
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        named = {
            target
            for one in present_documents()
            for written in [*one.spans, *one.blocks]
            for target in re.findall(r"(?:^|\s)make ([a-z]+)", written)
        }
        assert {"run", "test", "check"} <= named <= targets


def _exists(document: Document, written: str, present: set[str]) -> bool:
    if "/" not in written:
        return written in present
    return (ROOT / written).exists() or (document.path.parent / written).exists()


class TestPlaces:
    @pytest.mark.parametrize("document", documents(), ids=repr)
    def test_every_link_between_documents_leads_somewhere(self, document: Document) -> None:
        broken = []
        for link in document.links:
            if re.match(r"[a-z]+:", link):
                continue
            place, _, anchor = link.partition("#")
            path = (document.path.parent / place).resolve() if place else document.path
            if not path.exists() or (anchor and anchor not in Document(path).anchors):
                broken.append(link)
        assert broken == []

    def test_every_document_is_reached_from_the_readme(self) -> None:
        reached, waiting = {README.path}, [README.path]
        while waiting:
            path = waiting.pop()
            for link in Document(path).links:
                place = (path.parent / link.partition("#")[0]).resolve()
                place = place / "README.md" if place.is_dir() else place
                if place.suffix == ".md" and place.exists() and place not in reached:
                    reached.add(place)
                    waiting.append(place)
        assert {one.path for one in documents()} <= reached

    def test_the_map_in_the_readme_has_the_folders_that_there_are(self) -> None:
        (tree,) = README.section("Map").blocks
        drawn, parent = set(), Path()
        for line in tree.splitlines():
            for number, name in enumerate(re.findall(r"(?:^|\s)([a-z]+)/", line)):
                if not line.startswith(" ") and number == 0:
                    parent = Path(name)
                    drawn.add(parent)
                else:
                    drawn.add(parent / name)
        there = {Path(path.name) for path in _folders(ROOT)}
        there |= {Path("app") / path.name for path in _folders(ROOT / "app")}
        assert drawn == there

    def test_decisions_are_numbered_and_have_the_four_parts(self) -> None:
        pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
        assert [path.name[:4] for path in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
        for number, path in enumerate(pages, start=1):
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            assert headings[0].startswith(f"{number}. ")
            assert headings[1:] == ["Context", "Decision", "Consequences", "Rejected"], path.name

    def test_the_stream_in_the_readme_was_resumed_without_a_gap(self) -> None:
        shown = README.text.partition("<!-- resume:begin -->")[2].partition("<!-- resume:end")[0]
        commands = shown.split("\n$ ")
        cut, rest = commands[-2], commands[-1]
        last, resumed = _positions(cut)[-1], _positions(rest)[0]
        assert f"Last-Event-ID: {last}'" in rest.splitlines()[0]
        epoch, seq = (int(part) for part in last.split("-"))
        assert resumed == f"{epoch}-{seq + 1}"


def _folders(folder: Path) -> list[Path]:
    ignored = re.findall(r"^/(\w+)/$", (ROOT / ".gitignore").read_text(), re.MULTILINE)
    return [
        path
        for path in folder.iterdir()
        if path.is_dir() and path.name[0] not in "._" and path.name not in ignored
    ]


def _positions(events: str) -> list[str]:
    return re.findall(r"^id: (\S+)$", events, re.MULTILINE)
