"""Sending a session's frames over one HTTP response until either side ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, Protocol, TypeVar

import structlog
from litestar.types import Receive, Scope, Send

from app.domain.errors import ChatError
from app.domain.frames import Frame
from app.ending import end
from app.web.exchange import exchange_of
from app.web.problems import ClientGone

_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    # nginx would hold the events back otherwise.
    (b"x-accel-buffering", b"no"),
]
_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")


class Follows(Protocol):
    """What is followed: an open follower of a session."""

    def frames(self) -> AsyncIterator[Frame]:
        """Give the frames, the last one being a ``Bye``."""
        ...

    async def close(self) -> None:
        """Give the connection's slot back."""
        ...


class EventStream:
    """An ASGI response that sends frames as they come, one write each.

    It ends when the frames do, when the client leaves (noticed at once, not at the next write),
    or when one write takes longer than ``send_timeout_seconds``: a client that never reads is
    dropped and costs nothing further. The follower is closed in every case.
    """

    def __init__(
        self,
        follower: Follows,
        *,
        prologue: bytes,
        encode: Callable[[Frame], bytes],
        encode_error: Callable[[Exception], bytes],
        send_timeout_seconds: float,
    ) -> None:
        """Take an open follower over: from here on this object closes it."""
        self._follower = follower
        self._prologue = prologue
        self._encode = encode
        self._encode_error = encode_error
        self._send_timeout_seconds = send_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; returns when nothing more will be sent."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            if exchange_of(scope).is_head:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await unless_gone(receive, self._run(send))
        except ClientGone:
            pass
        except TimeoutError:
            _log.info("stream dropped: the client does not read")
        finally:
            # In a task of its own: a second cancellation must not leave the slot taken.
            await asyncio.shield(asyncio.ensure_future(self._follower.close()))

    async def _run(self, send: Send) -> None:
        await self._write(send, self._prologue)
        try:
            frames = self._follower.frames()
            if isinstance(frames, AsyncGenerator):
                async with aclosing(frames):
                    await self._relay(send, frames)
            else:
                await self._relay(send, frames)
        except (TimeoutError, ClientGone):
            raise
        except Exception as error:  # noqa: BLE001
            # The status is long sent: the stream itself has to say what ended it.
            if not isinstance(error, ChatError):
                _log.error("unexpected error in a stream", exc_info=error)
            await self._write(send, self._encode_error(error))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _relay(self, send: Send, frames: AsyncIterator[Frame]) -> None:
        async for frame in frames:
            data = self._encode(frame)
            if data:
                await self._write(send, data)

    async def _write(self, send: Send, data: bytes) -> None:
        async with asyncio.timeout(self._send_timeout_seconds):
            await send({"type": "http.response.body", "body": data, "more_body": True})


async def unless_gone(receive: Receive, work: Awaitable[_Result]) -> _Result:
    """Do ``work``; cancel it and raise ClientGone as soon as the client disconnects."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        # Both have ended before the caller goes on: what work holds is let go by then.
        await end(working, watching)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
