"""One connection that receives all of a process's publications, with as little work as possible.

redis-py's PubSub costs several times more per message and hides the confirmations of a
resubscription, which are the only sign that publications may have been missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import hiredis
import structlog
from redis.asyncio.connection import parse_url

from app.ending import end
from app.streams.link import Link, connect_link, greeting

_PING_SECONDS = 5.0
_SILENCE_SECONDS = 15.0
_BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)

logger = structlog.get_logger(__name__)


class Subscriber:
    """Keeps subscriptions over any loss of the connection, and says when something may be missing.

    ``on_message(channel, payload)`` is called for each publication, ``on_subscribed(channel)`` at
    each confirmation: the first, and every one after a lost connection. Whoever needs every
    publication reads what it follows from its source at that moment. Both are called on the
    event loop and must not block.
    """

    def __init__(
        self,
        url: str,
        *,
        on_message: Callable[[str, bytes], None],
        on_subscribed: Callable[[str], None],
    ) -> None:
        """Take a ``redis://``, ``rediss://`` or ``unix://`` URL; ``start`` connects."""
        self._where: dict[str, Any] = dict(parse_url(url))
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._wanted: set[str] = set()
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether publications can arrive just now."""
        return self._link is not None

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="subscriber")

    async def close(self) -> None:
        """End the connection; nothing is called any more."""
        await end(self._task)
        self._task = None

    def subscribe(self, channel: str) -> None:
        """Receive a channel from some moment soon on: ``on_subscribed`` tells which."""
        self._wanted.add(channel)
        if self._link is not None:
            self._link.send(("SUBSCRIBE", channel))

    def unsubscribe(self, channel: str) -> None:
        """Receive a channel no more."""
        self._wanted.discard(channel)
        if self._link is not None:
            self._link.send(("UNSUBSCRIBE", channel))

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._serve()
                failures = 0
            except (OSError, TimeoutError, hiredis.HiredisError) as failure:
                failures += 1
                if failures == 1:
                    logger.warning("subscriber_disconnected", reason=type(failure).__name__)
            await asyncio.sleep(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])

    async def _serve(self) -> None:
        link = await connect_link(self._where, self._received)
        try:
            link.send(*greeting(self._where))
            self._link = link
            if self._wanted:
                link.send(("SUBSCRIBE", *self._wanted))
            while not link.lost.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(link.lost.wait(), _PING_SECONDS)
                    break
                if link.silent_for() > _SILENCE_SECONDS:
                    # Half-open: the peer is gone or frozen, and no error will ever arrive.
                    raise TimeoutError
                link.send(("PING",))
        finally:
            self._link = None
            link.abort()

    def _received(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        if not isinstance(reply, list):
            return
        kind = reply[0]
        if kind == b"message":
            self._on_message(reply[1].decode(), reply[2])
        elif kind == b"subscribe":
            channel = reply[1].decode()
            if channel in self._wanted:
                self._on_subscribed(channel)
