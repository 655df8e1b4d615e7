"""The public keys of another issuer, from the address at which it publishes them (RFC 7517).

They are fetched when a token needs them, by one request at a time and on the event loop's own
terms: a token whose key is known waits for nothing. What the issuer may cost is bounded, whatever
tokens arrive and whatever the issuer answers: in the number of fetches, in time, in bytes and keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import httpx2
import jwt
import msgspec
import structlog

from app.accounts.keys import ALGORITHMS, PublicKey, public_key
from app.domain.errors import Unavailable
from app.ending import end

_BYTES_MAX: Final = 256 * 1024
_KEYS_MAX: Final = 100
_OK: Final = 200

logger = structlog.get_logger(__name__)


class JwksLimits(NamedTuple):
    """What fetching may cost, in seconds."""

    fetch_seconds: float = 5.0
    """Longest time that one fetch takes."""
    fresh_seconds: float = 300.0
    """Age at which keys are fetched again, while those that are there go on being used."""
    stale_seconds: float = 86_400.0
    """Age at which keys are used no more, however long the issuer is away."""
    pause_seconds: float = 10.0
    """Shortest time from one fetch to the next, whatever tokens ask for."""
    retry_seconds: float = 1.0
    """The same where no keys were had yet."""


class Jwks:
    """An issuer's keys by their ids."""

    def __init__(
        self,
        url: str,
        *,
        algorithm: str | None = None,
        limits: JwksLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the address; ``algorithm`` leaves out the keys that are for another one."""
        self._url = url
        self._algorithm = algorithm
        self._limits = limits or JwksLimits()
        self._clock = clock
        self._client: httpx2.AsyncClient | None = None
        self._keys: dict[str | None, PublicKey] | None = None
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._has_failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> PublicKey | None:
        """Give the key of that id; for None the only one that there is, where there is one.

        Raises Unavailable where it is not known, and the issuer cannot be asked.
        """
        found = self._known(key_id)
        if found is not None:
            if self._clock() - self._fetched_at >= self._limits.fresh_seconds:
                self._fetch()  # and nobody waits for it
            return found
        fetching = self._fetch()
        if fetching is not None:
            # Shared by all who wait: one that leaves must not end it for the others.
            await asyncio.shield(fetching)
            found = self._known(key_id)
        if found is None and (self._has_failed or not self._usable()):
            raise Unavailable("the keys of the token's issuer cannot be had")
        return found

    async def close(self) -> None:
        """Fetch no more."""
        await end(self._fetching)
        if self._client is not None:
            await self._client.aclose()

    def _known(self, key_id: str | None) -> PublicKey | None:
        keys = self._usable()
        if key_id is None and len(keys) == 1:
            return next(iter(keys.values()))
        return keys.get(key_id)

    def _usable(self) -> dict[str | None, PublicKey]:
        if self._keys is None or self._clock() - self._fetched_at >= self._limits.stale_seconds:
            return {}
        return self._keys

    def _fetch(self) -> asyncio.Task[None] | None:
        """Give the fetch that runs, begun where it is time for one; None where it is not."""
        if self._fetching is not None:
            return self._fetching
        limits = self._limits
        pause = limits.pause_seconds if self._usable() else limits.retry_seconds
        if self._tried_at is not None and self._clock() - self._tried_at < pause:
            return None
        self._tried_at = self._clock()
        self._fetching = asyncio.get_running_loop().create_task(self._refresh(), name="jwks")
        return self._fetching

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._limits.fetch_seconds):
                document = await self._read()
            self._keys = _keys_of(document, self._algorithm)
            self._fetched_at = self._clock()
            self._has_failed = False
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError, ValueError) as error:
            self._has_failed = True
            logger.warning("jwks_not_fetched", reason=type(error).__name__, detail=str(error)[:200])
        finally:
            # From the end of a slow one on, lest they follow each other without a pause.
            self._tried_at = self._clock()
            self._fetching = None

    async def _read(self) -> bytes:
        if self._client is None:
            # In a thread: reading the certificates of this machine's authorities takes a while.
            self._client = await asyncio.to_thread(
                httpx2.AsyncClient,
                timeout=self._limits.fetch_seconds,
                # Plain HTTP is for this machine alone: no proxy has anything to do with it.
                trust_env=self._url.startswith("https:"),
            )
        # A redirect is not followed: it could lead to where nobody was told to trust.
        async with self._client.stream(
            "GET",
            self._url,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        ) as response:
            if response.status_code != _OK:
                raise ValueError(f"the issuer answered with status {response.status_code}")
            body = b""
            # As it was sent: a few bytes can be unpacked to many.
            async for part in response.aiter_raw():
                body += part
                if len(body) > _BYTES_MAX:
                    raise ValueError(f"the issuer's answer has more than {_BYTES_MAX} bytes")
            return body


def _keys_of(document: bytes, algorithm: str | None) -> dict[str | None, PublicKey]:
    """Give the keys of a set that sign tokens; those that cannot be used are left out.

    Raises ValueError for what is no set.
    """
    try:
        found = msgspec.json.decode(document, type=_KeySet).keys
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("the issuer's answer is no key set") from error
    if len(found) > _KEYS_MAX:
        raise ValueError(f"the issuer has more than {_KEYS_MAX} keys")
    keys: dict[str | None, PublicKey] = {}
    for described in found:
        key_id = described.get("kid")
        usable = _key_of(described, algorithm)
        if usable is not None and (key_id is None or isinstance(key_id, str)):
            keys.setdefault(key_id, usable)
    return keys


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def _key_of(described: dict[str, Any], algorithm: str | None) -> PublicKey | None:
    # A private key that was published is no secret any more, and a symmetric one never was one.
    if described.get("use", "sig") != "sig" or "d" in described or described.get("kty") == "oct":
        return None
    said = described.get("alg")
    if said is not None and (not isinstance(said, str) or said not in ALGORITHMS):
        return None
    try:
        usable = public_key(jwt.PyJWK(described).key, algorithm or said)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return usable if said is None or said == usable.algorithm else None
