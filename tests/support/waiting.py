"""Waiting for a described condition, never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

_Seen = TypeVar("_Seen")
_POLL_SECONDS = 0.01


async def eventually(
    condition: Callable[[], _Seen], expected: str, *, seconds: float = 10.0
) -> _Seen:
    """Give the condition's first true value; fail with what was expected and what was seen."""
    deadline = time.monotonic() + seconds
    while not (seen := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"expected within {seconds} s: {expected}; saw {seen!r}")
        await asyncio.sleep(_POLL_SECONDS)
    return seen
