"""HTML from the templates: whole pages, and the pieces that a stream changes them with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape

from app.domain.messages import Message
from app.web.assets import Assets
from app.web.exchange import exchange_of
from app.web.markdown import Change, Markdown, MarkdownStream, code_run
from app.web.model_choice import ModelChoice
from app.web.problems import AnyRequest, Problem
from app.web.signed_in import TEMPLATE_GLOBALS
from app.web.thoughts import runs_of

_CODE: Final = re.compile("`([^`]+)`")


class Rendering:
    """The templates, with the static files and the models that they name."""

    def __init__(self, templates: Path, assets: Assets, models: ModelChoice) -> None:
        """Take the folder of the templates; each is compiled at first use."""
        self.assets = assets
        self.models = models
        self._markdown = Markdown()
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(templates),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals["asset"] = assets.url
        self._environment.globals["models"] = models
        self._environment.globals.update(TEMPLATE_GLOBALS)
        self._environment.filters["verbatim"] = verbatim
        self._environment.filters["answer"] = self._answer
        self._environment.filters["thoughts"] = _thoughts
        self._environment.filters["moment"] = moment
        self._environment.filters["coded"] = coded

    def render(self, template: str, /, **values: Any) -> bytes:
        """Render a template; a value that it needs and does not get is an error."""
        return self._environment.get_template(template).render(values).encode()

    def article(self, message: Message) -> str:
        """Draw one message as the page and the stream show it."""
        return self._environment.get_template("article.html").render(message=message)

    def answer_stream(self, message_id: str) -> MarkdownStream:
        """Begin to follow the text of an answer, numbered as ``article`` numbers its blocks."""
        return self._markdown.stream(_prefix(message_id))

    def _answer(self, message: Message) -> Markup:
        """Draw an answer's text; a final one with what reaches across its blocks."""
        prefix = _prefix(message.message_id)
        if message.is_complete:
            found = self._markdown.document(message.content, prefix)
            blocks = [(block.number, block.html) for block in found]
        else:
            changes = self._markdown.stream(prefix).append(message.content)
            blocks = [(change.block, change.html) for change in changes]
        # Sanitised by the last step of the renderer.
        return Markup("".join(_block(prefix, *block) for block in blocks))  # noqa: S704

    def problem(self, request: AnyRequest, problem: Problem) -> bytes:
        """Draw a problem: a line for htmx to show beside what failed, else a whole page."""
        if request.headers.get("hx-request") == "true":
            return self.render("problem_line.html", problem=problem)
        return self.render(
            "problem.html",
            problem=problem,
            phrase=HTTPStatus(problem.status).phrase,
            request_id=exchange_of(request.scope).request_id,
        )


def changed(message_id: str, changes: list[Change]) -> bytes:
    """Draw what changed in the text of an answer, addressed so that repeating it changes nothing.

    Blocks and runs are replaced by their ids or put at the end. «.open»: an answer whose final
    state the page has already takes no more text.
    """
    prefix = _prefix(message_id)
    answer = f"#m-{message_id}.open"
    html = "".join(_block(prefix, each.block, each.html) for each in changes if each.run is None)
    if html:
        html = f'<hx-upsert hx-target="{answer} > .text">{html}</hx-upsert>'
    runs = [change for change in changes if change.run is not None]
    if runs:
        html += f'<hx-upsert hx-target="{answer} #{prefix}b{runs[0].block} code">'
        html += "".join(code_run(prefix, run) for run in runs) + "</hx-upsert>"
    return html.encode()


def thought(message_id: str, runs: Mapping[int, str]) -> bytes:
    """Draw what changed in the reasoning of an answer, as ``changed`` does for its text."""
    target = f"#m-{message_id}.open > .reasoning > .thoughts"
    html = "".join(_run(_prefix(message_id), *run) for run in runs.items())
    return f'<hx-upsert hx-target="{target}">{html}</hx-upsert>'.encode()


def _thoughts(message: Message) -> Markup:
    """Draw an answer's reasoning, numbered as ``thought`` numbers its runs."""
    runs = runs_of(message.reasoning or "")
    return Markup("".join(_run(_prefix(message.message_id), *run) for run in runs.items()))  # noqa: S704


def _run(prefix: str, number: int, text: str) -> str:
    return f'<span id="{prefix}t{number}">{verbatim(text)}</span>'


def _prefix(message_id: str) -> str:
    return f"m-{message_id}-"


def _block(prefix: str, number: int, html: str) -> str:
    return f'<div id="{prefix}b{number}">{html}</div>'


def verbatim(text: str) -> Markup:
    """Escape text so that a parsed document has exactly these characters.

    A carriage return is written as a reference: HTML reads a bare one as a line feed, and so does
    an event stream.
    """
    return Markup(str(escape(text)).replace("\r", "&#13;"))  # noqa: S704


def moment(timestamp: str) -> str:
    """Write a time of the contract for a person: ``23 Nov 2026, 18:50`` (UTC)."""
    return datetime.fromisoformat(timestamp).strftime("%d %b %Y, %H:%M").lstrip("0")


def coded(text: str) -> Markup:
    """Escape a sentence of the API reference, and set what stands in backquotes as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704
