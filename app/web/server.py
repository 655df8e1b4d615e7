"""Running the application under uvicorn: listening, and ending without losing a stream."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import structlog
import uvicorn
from litestar import Litestar

_BACKLOG: Final = 2048
_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than a proxy keeps an idle connection: it must be the one to close it."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """A server that ends streams by their own means.

    At the first SIGINT or SIGTERM it stops listening and calls ``drain``, upon which every stream
    says ``bye`` and ends; what has not ended within ``drain_seconds`` is cancelled. A second
    signal does not wait for anything. ``run`` returns in either case.
    """

    def __init__(
        self,
        application: Litestar,
        *,
        drain: Callable[[], None],
        drain_seconds: float,
        websocket_deflate: bool = False,
    ) -> None:
        """Configure uvicorn; nothing runs yet.

        ``websocket_deflate`` says whether a WebSocket client that asks for permessage-deflate
        (RFC 7692) gets it.
        """
        super().__init__(
            uvicorn.Config(
                application,
                loop="asyncio" if sys.platform == "win32" else "uvloop",
                http="httptools",
                ws="websockets-sansio",
                ws_per_message_deflate=websocket_deflate,
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, math.ceil(drain_seconds)),
            )
        )
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving, and say where."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            _log.info("listening", host=host, port=port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; runs between two bytecodes of whatever the loop is doing."""
        del sig, frame
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_to_end)

    def _begin_to_end(self) -> None:
        # Not listening any more before the first bye: its client must not come back to us.
        for server in getattr(self, "servers", ()):
            server.close()
        self._drain()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while serving.

        uvicorn's own raises them again at the end, so that a shutdown in good order would look
        like a death by signal.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int, *, stalled_seconds: float) -> socket.socket:
    """Bind and listen; raise OSError where that cannot be done.

    On Linux the kernel drops an accepted connection whose peer has acknowledged nothing for
    ``stalled_seconds`` (TCP_USER_TIMEOUT, RFC 5482): a laptop that was closed, a lost network.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            # Elsewhere it would let two processes take the same port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            listener.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stalled_seconds * 1000)
            )
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.settimeout(0)
    except OSError:
        listener.close()
        raise
    return listener
