"""How many answers a model gives at once, and who is next."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.models.client import ModelFailed


class Room:
    """Places for ``places`` answers at once; users who wait take turns.

    One user's hundred questions wait behind each other, and another's one only behind the first of
    them. Of this process alone.
    """

    def __init__(self, *, places: int, wait_seconds: float) -> None:
        self._free = places
        self._wait_seconds = wait_seconds
        self._places = places
        # Users in the order of their turns, each with his own line; none is empty.
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._places - self._free

    @property
    def waiting(self) -> int:
        """How many answers wait for a place."""
        return sum(len(line) for line in self._lines.values())

    @asynccontextmanager
    async def place(self, user_id: str) -> AsyncIterator[None]:
        """Hold a place while the body runs.

        Raises ModelFailed ``model_busy`` where none is free after the longest wait.
        """
        await self._take(user_id)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, user_id: str) -> None:
        # Whoever waits already goes first; while somebody does, no place is free.
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(user_id, deque()).append(turn)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # Given a place in the moment of giving up: it is the next one's.
                self._give_back()
            else:
                self._leave(user_id, turn)
            if isinstance(error, TimeoutError):
                raise ModelFailed(
                    "model_busy", "The model is answering too many questions; try again later"
                ) from None
            raise

    def _leave(self, user_id: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(user_id)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[user_id]

    def _give_back(self) -> None:
        while self._lines:
            user_id, line = next(iter(self._lines.items()))
            turn = line.popleft()
            if line:
                self._lines.move_to_end(user_id)
            else:
                del self._lines[user_id]
            # One whose time ran out just now is cancelled, and has not left its line yet.
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
