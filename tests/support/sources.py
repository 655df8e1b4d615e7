"""The project's own source files, as tests that compare something with all of them read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.documents import ROOT

_FOLDERS = ("app", "workers", "migrations", "benchmarks", "scripts", "tests")
_PRODUCT = {"app", "workers", "migrations", "benchmarks"}
_KINDS = {".py", ".lua", ".sh", ".html", ".js", ".md"}


@cache
def sources() -> dict[Path, str]:
    """Give the text of every file in the folders that hold code."""
    return {
        path: path.read_text("utf-8")
        for folder in _FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in _KINDS
    }


def product_sources() -> dict[Path, str]:
    """Give the part of them that is not about tests and upkeep."""
    return {
        path: text
        for path, text in sources().items()
        if path.relative_to(ROOT).parts[0] in _PRODUCT
    }


@cache
def _trees() -> list[ast.Module]:
    return [ast.parse(text) for path, text in product_sources().items() if path.suffix == ".py"]


def nodes() -> Iterator[ast.AST]:
    """Give every node of the product's Python."""
    for tree in _trees():
        yield from ast.walk(tree)


@cache
def classes() -> dict[str, set[str]]:
    """Give every class of the product with the names of its methods and attributes."""
    found: dict[str, set[str]] = {}
    for node in nodes():
        if isinstance(node, ast.ClassDef):
            found.setdefault(node.name, set()).update(_members(node))
    return found


def _members(node: ast.ClassDef) -> Iterator[str]:
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Attribute(attr=name):
                yield name
            case _:
                pass
