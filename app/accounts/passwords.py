"""Passwords: argon2id, in threads of their own, a few at a time.

Hashing is slow on purpose. Two at once, in threads that the system serves last, leave the event
loop and other people's answers alone; whoever comes while too many wait is told to come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from app.domain.errors import Overloaded, ValidationFailed

PASSWORD_MIN_CHARACTERS: Final = 8
PASSWORD_MAX_CHARACTERS: Final = 256
HASHES_AT_ONCE: Final = 2
_WAITING_MAX: Final = 64
_NICENESS: Final = 10

_Done = TypeVar("_Done")

_COMMON: Final = frozenset(
    [
        "password",
        "passw0rd",
        "password1",
        "password123",
        "12345678",
        "123456789",
        "1234567890",
        "qwertyui",
        "qwerty123",
        "qwertyuiop",
        "1q2w3e4r",
        "1qaz2wsx",
        "iloveyou",
        "sunshine",
        "princess",
        "football",
        "baseball",
        "superman",
        "trustno1",
        "letmein1",
        "welcome1",
        "changeme",
        "admin123",
        "administrator",
        "throughline",
    ]
)
"""A few of what every list of guesses begins with."""


class Checked(NamedTuple):
    """What came of comparing a password."""

    matches: bool
    rehashed: str | None = None
    """A new hash of the same password, where the stored one was made with weaker parameters."""


class Passwords:
    """Hashes and compares passwords without holding up the event loop."""

    def __init__(
        self, *, memory_kib: int = 19_456, passes: int = 2, waiting_max: int = _WAITING_MAX
    ) -> None:
        """Take what one hash costs.

        The default is what OWASP's Password Storage Cheat Sheet recommends for Argon2id (RFC
        9106): 19 MiB, two passes, one lane.
        """
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._threads = ThreadPoolExecutor(
            HASHES_AT_ONCE, thread_name_prefix="passwords", initializer=_step_back
        )
        self._places = threading.BoundedSemaphore(HASHES_AT_ONCE + waiting_max)
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """Give the hash to store, with its salt and parameters. Raises Overloaded."""
        return await self._run(lambda: self._hasher.hash(normalised(password)))

    async def check(self, password: str, stored: str | None) -> Checked:
        """Compare a password with the stored hash; None is nobody's, and costs as much.

        Raises Overloaded.
        """
        return await self._run(lambda: self._check(normalised(password), stored))

    def close(self) -> None:
        """Begin no more hashes; those that run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, password: str, stored: str | None) -> Checked:
        if self._nobodys is None:
            # Made here and not at the start, which need not wait for it. Two threads may both.
            self._nobodys = self._hasher.hash("nobody has this password")
        try:
            self._hasher.verify(stored or self._nobodys, password)
        except (Argon2Error, InvalidHashError):
            return Checked(matches=False)
        if stored is None:
            return Checked(matches=False)
        if self._hasher.check_needs_rehash(stored):
            return Checked(matches=True, rehashed=self._hasher.hash(password))
        return Checked(matches=True)

    async def _run(self, work: Callable[[], _Done]) -> _Done:
        if not self._places.acquire(blocking=False):
            raise Overloaded("too many people are signing in; try again in a moment")
        try:
            running = self._threads.submit(work)
        except BaseException:
            self._places.release()
            raise
        # By the thread and not by us: a client that leaves frees no place while its hash runs.
        running.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(running)


def check_new_password(password: str, *, name: str) -> None:
    """Raise ValidationFailed for a password that nobody should have."""
    length = len(normalised(password))
    if not PASSWORD_MIN_CHARACTERS <= length <= PASSWORD_MAX_CHARACTERS:
        raise ValidationFailed(
            f"the password must have {PASSWORD_MIN_CHARACTERS} to {PASSWORD_MAX_CHARACTERS} "
            "characters"
        )
    folded = normalised(password).casefold()
    if folded in _COMMON or folded == name.casefold() or len(set(folded)) == 1:
        raise ValidationFailed("the password is one of the first that anybody would guess")


def normalised(password: str) -> str:
    """Write a password in one way, however it was composed (NFKC; NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def _step_back() -> None:
    """Let this thread run when nothing else wants to; where a system cannot, it shares."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
