"""``/ws/chat``: a session over one WebSocket, both ways.

A reader that is always running takes the client's frames (pings and pongs are seen only while
somebody reads), a sender relays the session's frames. Whichever ends first ends the connection,
with the close code of the contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from litestar import WebSocket, websocket

from app.chat.following import Follower
from app.domain.caller import Caller
from app.domain.errors import (
    ChatError,
    RateLimited,
    TooManyConnections,
    Unauthenticated,
    Unavailable,
    ValidationFailed,
)
from app.domain.frames import Bye, ByeReason, Entries, Frame, History
from app.domain.messages import check_session_id
from app.domain.position import Position
from app.ending import end
from app.web.auth import PUBLIC
from app.web.fragments import FragmentEncoder
from app.web.page_follower import PageFollower, state_reader
from app.web.page_frames import page_texts
from app.web.parts import Parts, parts_of
from app.web.problems import ClientGone
from app.web.proxies import address_of
from app.web.stream import Follows
from app.web.ws_frames import (
    CLOSE_CODES,
    FRAME_MAX_BYTES,
    AuthFrame,
    CancelFrame,
    ChatFrame,
    ClientFrame,
    PingFrame,
    answer,
    error_frame,
    frame_texts,
    read_frame,
)

_AUTH_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 1.0
_BAD_FRAME: Final = 4400
_NOT_AUTHENTICATED: Final = 4401
_TOO_LARGE: Final = 4413
_TOO_SLOW: Final = 4290
_BUG: Final = 1011

_log = structlog.get_logger(__name__)

_Socket = WebSocket[Any, Any, Any]


class _Closing(Exception):
    """The connection is to be closed by us."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(reason)


# Public, because a guard's refusal would be an HTTP answer: here it is a close code.
@websocket("/ws/chat", opt=PUBLIC)
async def chat_socket(socket: _Socket) -> None:
    """Serve one connection to its end."""
    await socket.accept()
    began = time.monotonic()
    connection = _Connection(socket, parts_of(socket))
    code, reason = 1006, "the client left"
    try:
        with connection.slot():
            await connection.run()
    except _Closing as closing:
        code, reason = closing.code, closing.reason
    except TooManyConnections as refused:
        with contextlib.suppress(TimeoutError, OSError, RuntimeError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await socket.send_text(error_frame(refused))
        code, reason = refused.close_code, refused.code
    except ClientGone:
        pass
    except Exception as error:  # noqa: BLE001
        _log.error("websocket_crashed", exc_info=error)
        code, reason = _BUG, "internal error"
    if code != 1006:  # noqa: PLR2004  «closed abnormally», never sent (RFC 6455, 7.4.1)
        with contextlib.suppress(TimeoutError, RuntimeError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await socket.close(code, reason)
    _log.info(
        "websocket",
        session_id=connection.session_id,
        user_id=connection.caller.user_id if connection.caller else None,
        close_code=code,
        client=address_of(socket.scope),
        duration_ms=round((time.monotonic() - began) * 1000),
    )


class _Connection:
    """One client."""

    def __init__(self, socket: _Socket, parts: Parts) -> None:
        self.session_id: str | None = None
        self.caller: Caller | None = None
        self._socket = socket
        self._parts = parts
        self._after: Position | None = None
        self._content: str | None = None
        self._follower: Follower | None = None
        self._is_ambient = False
        self._identified = asyncio.Event()
        self._switched = asyncio.Event()
        self._sending = asyncio.Lock()
        self._count_frame = parts.limits.frames()

    def slot(self) -> AbstractContextManager[None]:
        """Hold a connection of the client's address; raises TooManyConnections."""
        return self._parts.limits.connection(address_of(self._socket.scope))

    async def run(self) -> None:
        """Serve until either side ends it; always raises _Closing or ClientGone."""
        try:
            self._read_query()
            self.caller = await self._parts.gatekeeper.caller_of_socket(self._socket)
        except ChatError as error:
            await self._refuse(error)
        if self.caller is not None:
            self._is_ambient = self.caller.credential == "development"
            self._identified.set()
        reading = asyncio.ensure_future(self._read())
        try:
            while True:
                await self._follow_until_switched(reading)
        finally:
            await end(reading)

    async def _follow_until_switched(self, reading: asyncio.Future[None]) -> None:
        following = asyncio.ensure_future(self._follow())
        switched = asyncio.ensure_future(self._switched.wait())
        try:
            await asyncio.wait((reading, following, switched), return_when=asyncio.FIRST_COMPLETED)
            for work in (reading, following):
                if work.done():
                    work.result()
            self._switched.clear()
        finally:
            # Ended before the caller goes on: by then the follower has given its slot back.
            await end(following, switched)

    def _read_query(self) -> None:
        query = self._socket.query_params
        known = {
            name: query.getall(name, []) for name in ("session_id", "last_event_id", "content")
        }
        if any(len(values) > 1 for values in known.values()):
            raise ValidationFailed("a parameter is given more than once")
        session_id, position, content = (values[0] if values else None for values in known.values())
        if session_id is None:
            raise ValidationFailed("session_id is missing")
        self.session_id = check_session_id(session_id)
        if position is not None:
            self._after = Position.parse(position)
        # The third form is for our own page and no part of the contract.
        if content not in {None, "delta", "full", "html"}:
            raise ValidationFailed("content must be delta or full")
        self._content = content

    # ---- To the client.

    async def _follow(self) -> None:
        try:
            async with asyncio.timeout(_AUTH_SECONDS):
                await self._identified.wait()
        except TimeoutError:
            raise _Closing(_NOT_AUTHENTICATED, "no credential came in time") from None
        assert self.caller is not None  # noqa: S101
        assert self.session_id is not None  # noqa: S101
        try:
            await self._parts.limits.socket_stream(self.caller)
            follower = await self._parts.following.open(
                self.caller,
                self.session_id,
                self._after,
                "websocket",
                full_content=self._content == "full",
            )
        except ChatError as error:
            await self._refuse(error)
            raise
        try:
            followed, encode = self._encoded(follower, self.caller, self.session_id)
            if follower.deleted:
                bye = Bye(ByeReason.SESSION_DELETED, reconnect=False, after_ms=0)
                await self._say_bye(bye, encode)
            # A renewal that came while this was opening must not be lost.
            follower.renew(self.caller)
            self._follower = follower
            await self._relay(followed, encode)
        except ChatError as error:
            await self._refuse(error)
            raise
        finally:
            self._follower = None
            await asyncio.shield(asyncio.ensure_future(follower.close()))

    def _encoded(
        self, follower: Follower, caller: Caller, session_id: str
    ) -> tuple[Follows, Callable[[Frame], list[str]]]:
        """Give what is followed, and how its frames are written for this client."""
        if self._content != "html":
            return follower, frame_texts
        encoder = FragmentEncoder(self._parts.rendering, session_id)
        read_state = state_reader(self._parts.chat, caller, session_id)
        return PageFollower(follower, encoder, read_state), partial(page_texts, encoder)

    async def _relay(self, followed: Follows, encode: Callable[[Frame], list[str]]) -> None:
        async for frame in followed.frames():
            if isinstance(frame, Bye):
                await self._say_bye(frame, encode)
            await self._send(*encode(frame))
            # Whoever the connection turns out to be goes on from here.
            if isinstance(frame, Entries):
                self._after = frame.position
            elif isinstance(frame, History):
                self._after = Position.parse(frame.position)

    async def _say_bye(self, bye: Bye, encode: Callable[[Frame], list[str]]) -> None:
        await self._send(*encode(bye))
        raise _Closing(CLOSE_CODES[bye.reason], bye.reason.value)

    async def _refuse(self, error: ChatError) -> None:
        await self._send(error_frame(error))
        raise _Closing(error.close_code, error.code)

    async def _send(self, *texts: str) -> None:
        try:
            async with asyncio.timeout(self._parts.send_timeout_seconds), self._sending:
                for text in texts:
                    await self._socket.send({"type": "websocket.send", "text": text, "bytes": None})
        except TimeoutError:
            raise _Closing(_TOO_SLOW, "the client does not read") from None

    # ---- From the client.

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] != "websocket.receive":
                raise ClientGone
            await self._take(message.get("text"))

    async def _take(self, text: str | None) -> None:
        try:
            self._count_frame()
        except RateLimited as flood:
            await self._refuse(flood)
        if text is None:
            raise _Closing(_BAD_FRAME, "frames are JSON text")
        if len(text) > FRAME_MAX_BYTES or len(text.encode()) > FRAME_MAX_BYTES:
            raise _Closing(_TOO_LARGE, f"a frame may have at most {FRAME_MAX_BYTES} bytes")
        try:
            frame: ClientFrame = read_frame(text)
        except (msgspec.DecodeError, RecursionError) as error:
            await self._send(error_frame(ValidationFailed(f"bad frame: {str(error)[:200]}")))
            raise _Closing(_BAD_FRAME, "bad frame") from error
        if isinstance(frame, AuthFrame):
            await self._authenticate(frame)
            return
        caller = self.caller
        if caller is None:
            raise _Closing(_NOT_AUTHENTICATED, "the first frame must be auth")
        await self._obey(caller, frame)

    async def _obey(self, caller: Caller, frame: ChatFrame | CancelFrame | PingFrame) -> None:
        try:
            self._parts.gatekeeper.check_still(caller)
        except Unauthenticated as error:
            await self._refuse(error)
        match frame:
            case PingFrame():
                await self._send(answer("pong", {}))
            case ChatFrame():
                await self._ask(caller, frame)
            case CancelFrame():
                await self._cancel(caller, frame)

    async def _authenticate(self, frame: AuthFrame) -> None:
        try:
            caller = await self._parts.gatekeeper.caller_of_token(frame.token)
        except (Unauthenticated, Unavailable) as error:
            await self._refuse(error)
            raise
        before, self.caller = self.caller, caller
        if before is None:
            self._identified.set()
        elif caller.user_id == before.user_id:
            if self._follower is not None:
                self._follower.renew(caller)
        elif self._is_ambient:
            # Until now it was whoever has no credential: what they see is no longer theirs.
            self._switched.set()
        else:
            self.caller = before
            raise _Closing(_NOT_AUTHENTICATED, "the token is another user's")
        self._is_ambient = False
        await self._send(
            answer("ack", {"user_id": caller.user_id, "expires_at": caller.expires_at})
        )

    async def _ask(self, caller: Caller, frame: ChatFrame) -> None:
        try:
            await self._parts.limits.frame_question(caller, frame.message)
            # The session exists: a connection to one that does not is closed before.
            asked, _ = await self._parts.chat.ask(
                caller,
                text=frame.message,
                session_id=self.session_id,
                client_message_id=frame.client_message_id,
                model=frame.model,
            )
        except ChatError as error:
            await self._send(error_frame(error, frame.client_message_id))
            return
        await self._send(answer("ack", asked))

    async def _cancel(self, caller: Caller, frame: CancelFrame) -> None:
        try:
            await self._parts.limits.frame_request(caller)
            status, _ = await self._parts.chat.cancel(caller, frame.message_id)
        except ChatError as error:
            await self._send(error_frame(error))
            return
        await self._send(answer("ack", {"message_id": frame.message_id, "status": status}))


ROUTES: Final = [chat_socket]
