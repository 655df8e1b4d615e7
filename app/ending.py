"""Ending tasks for good."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_CANCEL_AGAIN_SECONDS: Final = 0.1


async def end(*tasks: asyncio.Task[Any] | asyncio.Future[Any] | None) -> None:
    """Cancel tasks until they have ended; what they raised is dropped, None is passed over.

    Once is not enough before Python 3.12: there ``asyncio.wait_for``, which redis-py wraps its
    reads and writes in, drops a cancellation that meets a result. Whoever cancels once and awaits
    then waits for ever.
    """
    given = {task for task in tasks if task is not None}
    while pending := {task for task in given if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    for task in given:
        if not task.cancelled():
            # Looked at, so that the loop does not report it as an error that nobody saw.
            task.exception()
