"""What was revoked: tokens, sign-ins, and all tokens that a user had at some moment.

Every node knows all of it, so that asking costs no round trip. It is told by publication, reads
everything whenever its subscription is confirmed, and looks every ``REFRESH_SECONDS`` whether
something changed that it was not told of: that bounds how late a lost publication makes it. While
Redis is away what is known counts on. What Redis has lost, or could not be told, is written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal, cast

import msgspec
import structlog

from app.domain.caller import LONGEST_TOKEN_SECONDS, Caller
from app.domain.errors import Unavailable
from app.ending import end
from app.streams import keys, scripts
from app.streams.connection import reachable

if TYPE_CHECKING:
    from redis.asyncio import Redis

REFRESH_SECONDS: Final = 2.0
_CLOCKS_SECONDS: Final = 60.0
"""By how much the clocks of nodes may differ before one forgets too early."""

_LOAD_SECONDS: Final = 2.0
_BATCH: Final = 1000

logger = structlog.get_logger(__name__)


class _Revoked(msgspec.Struct, array_like=True, frozen=True):
    """One revocation, as it is written: ``["user", <id>]``.

    That of a user ends LONGEST_TOKEN_SECONDS after it was made: so its end says up to when tokens
    were revoked, and a later one takes the place of an earlier one.
    """

    kind: Literal["token", "sign_in", "user"]
    id: str


class Revocations:
    """All that was revoked and may still have a token."""

    def __init__(
        self,
        redis: Redis,
        *,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the client, the clock that tokens are made by, and whom to tell of something new.

        ``on_change`` is called on the event loop and must not block.
        """
        self._redis = redis
        self._clock = clock
        self._on_change = on_change
        self._revoke = scripts.load("revoke")
        self._ends: dict[bytes, float] = {}
        self._tokens: set[str] = set()
        self._sign_ins: set[str] = set()
        self._users: dict[str, float] = {}
        self._version: bytes | None = None
        """Of what Redis has and was read; None where it must be read whatever it says."""
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # ---- Revoking.

    async def revoke_token(self, token_id: str, *, seconds: int) -> None:
        """Revoke one token, which ends within ``seconds``.

        Raises Unavailable where Redis cannot be told. This node knows of it all the same, and tells
        Redis when it is back.
        """
        await self._add(_Revoked("token", token_id), seconds)

    async def revoke_sign_in(self, sign_in_id: str, *, seconds: int) -> None:
        """Revoke all tokens of a sign-in, present and to come; as ``revoke_token`` otherwise."""
        await self._add(_Revoked("sign_in", sign_in_id), seconds)

    async def revoke_user(self, user_id: str, *, seconds: int = LONGEST_TOKEN_SECONDS) -> None:  # noqa: ARG002
        """Revoke all tokens that a user was given until now; as ``revoke_token`` otherwise.

        It lasts for as long as any token may, however short-lived those are said to be.
        """
        await self._add(_Revoked("user", user_id), LONGEST_TOKEN_SECONDS)

    def is_revoked(self, caller: Caller) -> bool:
        """Say whether what the caller showed counts no more."""
        if caller.credential == "development":
            return False
        if caller.token_id in self._tokens or caller.sign_in_id in self._sign_ins:
            return True
        until = self._users.get(caller.user_id)
        # A token that does not say when it was made may be as old as any.
        return until is not None and (caller.issued_at is None or caller.issued_at <= until)

    # ---- Knowing.

    async def start(self) -> None:
        """Read what there is, and keep up with it until ``close``.

        Without Redis it begins with nothing, and reads as soon as it can.
        """
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_LOAD_SECONDS):
                await self.refresh()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="revocations")

    async def close(self) -> None:
        """Keep up no more."""
        await end(self._task)
        self._task = None

    def published(self, payload: bytes) -> None:
        """Take a publication."""
        ends, _, text = payload.partition(b" ")
        try:
            self._take({text: float(ends)})
        except ValueError:
            logger.warning("revocation_not_understood")

    def subscribed(self) -> None:
        """Read soon: publications before this moment were not received."""
        self._version = None
        self._asked.set()

    async def refresh(self) -> None:
        """Read what changed since the last time; raise Unavailable."""
        self._forget()
        with reachable():
            # Before the set: what changes in between has another version, and is read next time.
            version = cast("bytes | None", await self._redis.get(keys.REVOKED_VERSION))
            if version is not None and version == self._version:
                return
            found = dict(
                cast(
                    "Iterable[tuple[bytes, float]]",
                    await self._redis.zrange(keys.REVOKED, 0, -1, withscores=True),
                )
            )
        self._take(found)
        lost = {
            text: ends for text, ends in self._ends.items() if found.get(text, -math.inf) < ends
        }
        if lost:
            await self._write(lost)
        self._version = version

    # ---- Inside.

    async def _add(self, revoked: _Revoked, seconds: int) -> None:
        revocation = {msgspec.json.encode(revoked): self._clock() + seconds}
        self._version = None
        self._take(revocation)
        await self._write(revocation)

    async def _write(self, revocations: Mapping[bytes, float]) -> None:
        written = list(revocations.items())
        for at in range(0, len(written), _BATCH):
            arguments = [
                part for text, ends in written[at : at + _BATCH] for part in (repr(ends), text)
            ]
            with reachable():
                await scripts.run(
                    self._redis,
                    self._revoke,
                    [keys.REVOKED, keys.REVOKED_VERSION],
                    keys.REVOKED_CHANNEL,
                    secrets.token_hex(8),
                    repr(self._clock() - _CLOCKS_SECONDS),
                    *arguments,
                )

    async def _run(self) -> None:
        is_away = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._asked.wait()
            self._asked.clear()
            try:
                await self.refresh()
                is_away = False
            except Unavailable:
                if not is_away:
                    logger.warning("revocations_unread")
                is_away = True

    def _take(self, revocations: Mapping[bytes, float]) -> None:
        oldest = self._clock() - _CLOCKS_SECONDS
        is_new = False
        for text, ends in revocations.items():
            if ends <= max(self._ends.get(text, -math.inf), oldest):
                continue
            try:
                self._learn(msgspec.json.decode(text, type=_Revoked), ends)
            except msgspec.MsgspecError:  # another version's
                logger.warning("revocation_not_understood")
                continue
            self._ends[text] = ends
            is_new = True
        if is_new:
            self._on_change()

    def _learn(self, revoked: _Revoked, ends: float) -> None:
        match revoked.kind:
            case "token":
                self._tokens.add(revoked.id)
            case "sign_in":
                self._sign_ins.add(revoked.id)
            case "user":
                self._users[revoked.id] = ends - LONGEST_TOKEN_SECONDS

    def _forget(self) -> None:
        oldest = self._clock() - _CLOCKS_SECONDS
        kept = {text: ends for text, ends in self._ends.items() if ends > oldest}
        if len(kept) == len(self._ends):
            return
        self._ends = kept
        self._tokens, self._sign_ins, self._users = set(), set(), {}
        for text, ends in kept.items():
            self._learn(msgspec.json.decode(text, type=_Revoked), ends)
