"""The demo model's prepared answers: Markdown files, chosen by the words of a question."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

_WORD = re.compile(r"\w+")
_QUOTED_MAX_CHARACTERS = 240

# The answer with the most of its phrases in the question is given; among equals the first.
_PHRASES: Final = {
    "story": ("story", "tale", "long", "novel", "essay", "lighthouse"),
    "poem": ("poem", "poetry", "verse", "rhyme", "haiku", "song"),
    "sql": ("sql", "database", "query", "join", "postgres", "postgresql", "sqlite"),
    "python": ("python", "code", "function", "script", "program", "programming"),
    "comparison": (
        "compare", "comparison", "table", "difference", "versus", "vs", "websocket",
        "websockets", "sse", "server sent events", "polling", "long poll",
    ),
    "plan": (
        "plan", "list", "steps", "checklist", "schedule", "organise", "organize", "todo",
        "weekend",
    ),
    "resume": (
        "reload", "reloading", "refresh", "resume", "reconnect", "disconnect", "connection",
        "crash", "crashes", "offline", "close the tab", "how does throughline work",
    ),
    "about": (
        "who are you", "what are you", "what is this", "what s this", "what can you do",
        "about you", "yourself", "throughline", "demo", "your name", "help",
    ),
    "hello": ("hello", "hi", "hey", "good morning", "good evening", "greetings", "welcome"),
}  # fmt: skip


class CannedAnswers:
    """Every prepared answer, read once from the package."""

    def __init__(self) -> None:
        """Read the files; raise FileNotFoundError where the package is not whole."""
        directory = files("app.models.demo") / "answers"
        self._texts = {
            name: (directory / f"{name}.md").read_text(encoding="utf-8").rstrip("\n")
            for name in (*_PHRASES, "markdown", "default")
        }

    def named(self, name: str) -> str:
        """Give an answer by the name of its file."""
        return self._texts[name]

    def answer(self, question: str) -> str:
        """Give the answer that fits the question's words best, or one that quotes the question."""
        words = f" {' '.join(_WORD.findall(question.lower()))} "
        fitting = {
            name: sum(f" {phrase} " in words for phrase in phrases)
            for name, phrases in _PHRASES.items()
        }
        best = max(fitting, key=fitting.__getitem__)
        if fitting[best]:
            return self._texts[best]
        return self._texts["default"].replace("{question}", _quoted(question))


def _quoted(question: str) -> str:
    shown = question[:_QUOTED_MAX_CHARACTERS]
    if len(shown) < len(question):
        shown += "…"
    return "\n".join(f"> {line}".rstrip() for line in shown.splitlines())
