"""Tasks end although they miss a cancellation."""

from __future__ import annotations

import asyncio

from app.ending import end


async def test_a_task_that_misses_its_cancellation_is_cancelled_again() -> None:
    """As asyncio.wait_for does before Python 3.12 when a result comes at the same time."""
    missed = 0

    async def deaf() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                missed += 1
                if missed == 2:
                    raise

    task = asyncio.ensure_future(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end(task, None)
    assert task.cancelled()
    assert missed == 2


async def test_what_a_task_raised_before_is_dropped() -> None:
    async def broken() -> None:
        raise ValueError

    task = asyncio.ensure_future(broken())
    await asyncio.wait((task,))
    await end(task)
    assert task.done()
