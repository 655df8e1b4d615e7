"""Code in colours: classes of a style sheet, never styles."""

from __future__ import annotations

from html import escape
from typing import Final

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Token, _TokenType

MAX_CHARACTERS: Final = 20_000
"""Longer code stays plain: a lexer takes about a millisecond per thousand characters."""

CLASSES: Final = {
    Token.Comment: "c",
    Token.Comment.Preproc: "k",
    Token.Comment.PreprocFile: "s",
    Token.Keyword: "k",
    Token.Keyword.Constant: "n",
    Token.Keyword.Type: "y",
    Token.Operator.Word: "k",
    Token.Name.Attribute: "y",
    Token.Name.Builtin: "y",
    Token.Name.Class: "f",
    Token.Name.Decorator: "y",
    Token.Name.Exception: "y",
    Token.Name.Function: "f",
    Token.Name.Namespace: "y",
    Token.Name.Tag: "k",
    Token.Name.Variable: "y",
    Token.Literal.Number: "n",
    Token.Literal.String: "s",
    Token.Literal.String.Interpol: "y",
    Token.Literal.String.Affix: "k",
    Token.Generic.Deleted: "d",
    Token.Generic.Inserted: "i",
    Token.Generic.Heading: "f",
    Token.Generic.Subheading: "f",
    Token.Generic.Prompt: "c",
}
"""The style sheet's classes (``t-…``) by the nearest kind of token above; all else has none."""

_LANGUAGES: Final = {
    "bash": "bash", "sh": "bash", "shell": "bash", "zsh": "bash", "console": "console",
    "c": "c", "h": "c", "cpp": "cpp", "c++": "cpp", "csharp": "csharp", "cs": "csharp",
    "css": "css", "scss": "scss", "dart": "dart", "diff": "diff", "patch": "diff",
    "docker": "docker", "dockerfile": "docker", "elixir": "elixir", "go": "go", "golang": "go",
    "graphql": "graphql", "haskell": "haskell", "html": "html", "http": "http", "ini": "ini",
    "java": "java", "javascript": "javascript", "js": "javascript", "jsx": "javascript",
    "json": "json", "jsonc": "json", "kotlin": "kotlin", "lua": "lua", "make": "make",
    "makefile": "make", "markdown": "markdown", "md": "markdown", "nginx": "nginx",
    "perl": "perl", "php": "php", "powershell": "powershell", "ps1": "powershell",
    "proto": "protobuf", "python": "python", "py": "python", "python3": "python", "pycon": "pycon",
    "r": "r", "ruby": "ruby", "rb": "ruby", "rust": "rust", "rs": "rust", "scala": "scala",
    "sql": "sql", "svg": "xml", "swift": "swift", "terraform": "terraform", "toml": "toml",
    "ts": "typescript", "tsx": "typescript", "typescript": "typescript", "vue": "html",
    "xml": "xml", "yaml": "yaml", "yml": "yaml", "zig": "zig",
}  # fmt: skip
"""Names that a fence may have, and the lexer for each. Others are shown plain: what is not asked
for here is not imported, and its expressions cannot be made to backtrack."""


class Highlighter:
    """Colours code; keeps the lexers that were asked for, at most one per language."""

    def __init__(self) -> None:
        """Begin without any lexer: each is imported when the first code in it comes."""
        self._lexers: dict[str, Lexer] = {}

    def html(self, language: str, code: str) -> str:
        """Give ``code`` escaped, in spans of the classes ``t-…`` where the language is known."""
        lexer = self._lexer(language)
        if lexer is None or len(code) > MAX_CHARACTERS:
            return escape(code)
        spans: list[str] = []
        run, run_class, length = "", "", 0
        for _, token, value in lexer.get_tokens_unprocessed(code):
            length += len(value)
            kind = _class_of(token) if value.strip() else run_class
            if kind != run_class:
                spans.append(_span(run_class, run))
                run, run_class = "", kind
            run += value
        spans.append(_span(run_class, run))
        # A lexer that loses or makes up a character must not change what is shown.
        return "".join(spans) if length == len(code) else escape(code)

    def _lexer(self, language: str) -> Lexer | None:
        name = _LANGUAGES.get(language.lower())
        if name is None:
            return None
        if name not in self._lexers:
            self._lexers[name] = get_lexer_by_name(name)
        return self._lexers[name]


def code_block(html: str) -> str:
    """Frame code for the page, with the button that copies it; ``html`` has passed the allow-list.

    The button has no text: what a block shows is its code and nothing else.
    """
    return (
        f'<div class="code"><pre tabindex="0"><code>{html}</code></pre>'
        '<button type="button" class="copy" aria-label="Copy code"></button></div>'
    )


def _class_of(token: _TokenType) -> str:
    kind: _TokenType | None = token
    while kind is not None:
        if kind in CLASSES:
            return CLASSES[kind]
        kind = kind.parent
    return ""


def _span(kind: str, text: str) -> str:
    if not text:
        return ""
    return f'<span class="t-{kind}">{escape(text)}</span>' if kind else escape(text)
