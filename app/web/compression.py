"""What goes out compressed: static files, and pages that are sent whole. Never a stream."""

from __future__ import annotations

import asyncio
import gzip
from typing import Final

from litestar.types import HTTPScope

MIN_BYTES: Final = 1_000
"""Less fits into the packet that it would take anyway."""

_LEVEL: Final = 5
"""Within 5 percent of the best level's size for a page, in a quarter of its time."""
_INLINE_MAX_BYTES: Final = 64 * 1024
"""More is compressed by a thread: it would keep everybody else's streams waiting for too long."""
_OURS: Final = frozenset({b"", b"none", b"same-origin"})


def accepts_gzip(accept_encoding: str) -> bool:
    """Say whether an ``Accept-Encoding`` takes gzip (RFC 9110, 12.5.3); ``*`` is not enough."""
    for part in accept_encoding.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name in {"gzip", "x-gzip"}:
            return not any(_is_zero(parameter) for parameter in parameters)
    return False


def may_compress_page(scope: HTTPScope) -> bool:
    """Say whether the page that answers this request may be compressed.

    Not where another site made the browser ask: how well a page compresses would tell it how much
    what it put into the address has in common with what only the reader may see.
    """
    accepted = asked_by = b""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            accepted = value
        elif name == b"sec-fetch-site":
            asked_by = value
    return asked_by in _OURS and accepts_gzip(accepted.decode("latin-1"))


async def compress_page(body: bytes) -> bytes:
    """Compress a page without holding the loop for longer than about a millisecond."""
    if len(body) <= _INLINE_MAX_BYTES:
        return gzip.compress(body, _LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, _LEVEL, mtime=0)


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip() in {"0", "0.", "0.0", "0.00", "0.000"}
