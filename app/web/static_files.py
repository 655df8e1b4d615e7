"""The routes of the static files."""

from __future__ import annotations

from typing import Final

from litestar import get
from litestar.types import ASGIApp

from app.web.auth import PUBLIC
from app.web.parts import parts_of
from app.web.problems import AnyRequest


@get("/static/{name:path}", opt=PUBLIC)
async def static_file(request: AnyRequest) -> ASGIApp:
    """Serve one static file."""
    name = str(request.path_params["name"]).lstrip("/")
    return _file(request, name, request.query_params.get("v"))


@get("/favicon.ico", opt=PUBLIC)
async def favicon(request: AnyRequest) -> ASGIApp:
    """Serve the icon to browsers that ask for it by its old name."""
    return _file(request, "icon.svg", None)


def _file(request: AnyRequest, name: str, version: str | None) -> ASGIApp:
    return parts_of(request).rendering.assets.response(
        name,
        version=version,
        if_none_match=request.headers.get("if-none-match", ""),
        accept_encoding=request.headers.get("accept-encoding", ""),
    )


ROUTES: Final = [static_file, favicon]
