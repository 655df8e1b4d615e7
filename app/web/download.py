"""A file that is written while it is sent, at the pace of whoever receives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

import structlog
from litestar.types import Receive, Scope, Send

from app.domain.errors import ChatError
from app.web.exchange import exchange_of
from app.web.problems import ClientGone
from app.web.stream import unless_gone

_log: Final = structlog.get_logger(__name__)


class Download:
    """An ASGI response of unknown length, one page in memory at a time.

    It ends when the pages do, when the client leaves, or when one write takes longer than
    ``send_timeout_seconds``. Where a page fails the file ends before its last line.
    """

    def __init__(
        self,
        pages: AsyncIterator[bytes],
        *,
        name: str,
        media_type: str,
        check: Callable[[], None],
        send_timeout_seconds: float,
    ) -> None:
        """Take the pages, the file's name in ASCII, and what raises once it must not go on."""
        self._pages = pages
        self._headers = [
            (b"content-type", media_type.encode()),
            (b"content-disposition", f'attachment; filename="{name}"'.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        self._check = check
        self._send_timeout_seconds = send_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; returns when nothing more will be sent."""
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        if exchange_of(scope).is_head:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        try:
            await unless_gone(receive, self._run(send))
        except ClientGone:
            pass
        except TimeoutError:
            _log.info("download dropped: the client does not read")

    async def _run(self, send: Send) -> None:
        try:
            async with aclosing(self._pages) as pages:  # type: ignore[type-var]
                async for page in pages:
                    await self._write(send, page)
                    self._check()
        except ChatError as error:
            _log.info("download cut short", code=error.code)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, data: bytes) -> None:
        async with asyncio.timeout(self._send_timeout_seconds):
            await send({"type": "http.response.body", "body": data, "more_body": True})
