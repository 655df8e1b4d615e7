"""HTML from the templates: whole pages, and the pieces that a stream changes them with."""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape

from app.domain.messages import Message
from app.web.assets import Assets
from app.web.problems import AnyRequest, Problem

_CODE: Final = re.compile("`([^`]+)`")


class Rendering:
    """The templates, with the static files that they name."""

    def __init__(self, templates: Path, assets: Assets) -> None:
        """Take the folder of the templates; each is compiled at first use."""
        self.assets = assets
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(templates),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals["asset"] = assets.url
        self._environment.filters["verbatim"] = verbatim
        self._environment.filters["moment"] = moment
        self._environment.filters["coded"] = coded

    def render(self, template: str, /, **values: Any) -> bytes:
        """Render a template; a value that it needs and does not get is an error."""
        return self._environment.get_template(template).render(values).encode()

    def article(self, message: Message) -> str:
        """Draw one message as the page and the stream show it."""
        return self._environment.get_template("article.html").render(message=message)

    def problem(self, request: AnyRequest, problem: Problem) -> bytes:
        """Draw a problem: a line for htmx to show beside what failed, else a whole page."""
        if request.headers.get("hx-request") == "true":
            return self.render("problem_line.html", problem=problem)
        return self.render(
            "problem.html", problem=problem, phrase=HTTPStatus(problem.status).phrase
        )


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
