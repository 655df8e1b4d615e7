"""``/schema``: the OpenAPI document, and a page that is drawn from it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import get
from litestar.response import Response

from app.web.auth import PUBLIC
from app.web.openapi import known_problems
from app.web.parts import parts_of
from app.web.problems import AnyRequest, prefers_html

_METHODS: Final = ("get", "post", "patch", "delete")
_MAX_AGE: Final = {"Cache-Control": "public, max-age=300", "Vary": "Accept"}


@get("/schema", opt=PUBLIC)
async def reference(request: AnyRequest) -> Response[bytes]:
    """Give the reference as a page, or as JSON to whoever does not ask for HTML."""
    if not prefers_html(request):
        return _json(parts_of(request).openapi)
    parts = parts_of(request)
    return Response(
        parts.rendering.render(
            "reference.html",
            document=parts.openapi,
            operations=_operations(parts.openapi),
            problems=known_problems(),
        ),
        headers=_MAX_AGE,
        media_type="text/html",
    )


@get("/schema/openapi.json", opt=PUBLIC)
async def document(request: AnyRequest) -> Response[bytes]:
    """Give the OpenAPI document."""
    return _json(parts_of(request).openapi)


def _json(content: dict[str, Any]) -> Response[bytes]:
    return Response(msgspec.json.encode(content), headers=_MAX_AGE, media_type="application/json")


def _operations(content: dict[str, Any]) -> list[dict[str, Any]]:
    """List the operations in the order of the document, each with the parameters of its path."""
    return [
        item[method]
        | {
            "method": method.upper(),
            "path": path,
            "parameters": item.get("parameters", []) + item[method].get("parameters", []),
        }
        for path, item in content["paths"].items()
        for method in _METHODS
        if method in item
    ]


ROUTES: Final = [reference, document]
