"""How a page answers what was done on it: with a part of it, or by sending the browser on."""

from __future__ import annotations

from litestar.response import Response

from app.web.parts import Parts
from app.web.problems import AnyRequest, Problem


def is_htmx(request: AnyRequest) -> bool:
    """Say whether a script on the page sent this, not the browser itself."""
    return request.headers.get("hx-request") == "true"


def see_other(location: str) -> Response[bytes]:
    """Send the browser on after a form, so that a reload does not send it again."""
    return Response(b"", status_code=303, headers={"Location": location}, media_type="text/html")


def redirect(request: AnyRequest, location: str) -> Response[bytes]:
    """Send whoever sent the form to another page."""
    if is_htmx(request):
        return Response(b"", status_code=204, headers={"HX-Redirect": location})
    return see_other(location)


def page(
    parts: Parts, template: str, *, problem: Problem | None = None, **values: object
) -> Response[bytes]:
    """Render a page, or a part of one; under the status of the problem that it shows."""
    return Response(
        parts.rendering.render(template, problem=problem, **values),
        status_code=problem.status if problem else 200,
        headers=problem.headers if problem else {},
        media_type="text/html",
    )
