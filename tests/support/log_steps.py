"""A turn in a session log, step by step, for tests of each step's outcome."""

from __future__ import annotations

from typing import NamedTuple

from app.domain.events import NewEntry
from app.domain.lease import Lease
from app.domain.position import BEFORE_ALL, Position
from app.streams.session_log import (
    AppendBatch,
    AppendOutcome,
    Claimed,
    LogRange,
    Snapshot,
)
from tests.support.session_logs import LogUnderTest

SESSION = "s-1"
OTHER_SESSION = "s-2"
NODE = "worker:1"  # a node id may hold the character that parts it from the token
OTHER_NODE = "worker:2"
ANSWER = "a-1"
NEXT_ANSWER = "a-2"
LEASE_MS = 60_000


class State(NamedTuple):
    """Everything that a session's readers can see."""

    log: LogRange
    snapshot: Snapshot
    published: list[bytes]


class Steps:
    """What a web node and a worker do to SESSION, one call each, with no database beside it."""

    def __init__(self, under_test: LogUnderTest) -> None:
        self.under_test = under_test
        self.log = under_test.log
        self._published: list[bytes] = []

    async def published(self) -> list[bytes]:
        """Give all publications of SESSION so far."""
        self._published += await self.under_test.published(SESSION)
        return list(self._published)

    async def end_lease(self) -> None:
        """Let the time pass after which SESSION's lease holds no more."""
        await self.under_test.end_lease(SESSION)

    async def state(self) -> State:
        """Read SESSION with everything that its readers can see."""
        return State(
            await self.log.read(SESSION, BEFORE_ALL, 100_000),
            await self.log.snapshot(SESSION),
            await self.published(),
        )

    async def ask(
        self, message_id: str = ANSWER, *, attempt: int = 0, pristine: bool = False
    ) -> Position:
        """Submit a question, or with an attempt the same one again."""
        entries = [question(message_id)] if attempt == 0 else []
        submitted = await self.log.submit(SESSION, message_id, attempt, entries, pristine=pristine)
        return submitted.position

    async def claim(self, message_id: str = ANSWER, node_id: str = NODE) -> Claimed:
        """Take the lease, which must be free."""
        claimed = await self.log.claim(SESSION, message_id, node_id, LEASE_MS)
        assert isinstance(claimed, Claimed), claimed
        return claimed

    async def start(
        self, lease: Lease, message_id: str = ANSWER, attempt: int = 1, *, kept: str = ""
    ) -> AppendOutcome:
        """Begin an attempt."""
        return await self.log.start(
            lease,
            message_id,
            attempt,
            kept=kept,
            entries=[started(message_id, attempt)],
            entries_if_unknown=[question(message_id)],
        )

    async def begin(
        self, message_id: str = ANSWER, attempt: int = 1, *, node_id: str = NODE, kept: str = ""
    ) -> Lease:
        """Claim and start; both must succeed."""
        lease = (await self.claim(message_id, node_id)).lease
        assert await self.start(lease, message_id, attempt, kept=kept) is AppendOutcome.OK
        return lease

    async def write(
        self,
        lease: Lease,
        first_index: int,
        *texts: str,
        message_id: str = ANSWER,
        attempt: int = 1,
    ) -> AppendOutcome:
        """Append chunks from an index on."""
        [outcome] = await self.log.append(
            [batch(lease, first_index, *texts)._replace(message_id=message_id, attempt=attempt)]
        )
        return outcome

    async def finish(
        self, lease: Lease, message_id: str = ANSWER, attempt: int = 1
    ) -> AppendOutcome:
        """Append the final state."""
        return await self.log.finish(lease, message_id, attempt, final(message_id))

    async def answer(self, message_id: str, *texts: str, pristine: bool = False) -> None:
        """Go through a whole turn."""
        await self.ask(message_id, pristine=pristine)
        lease = await self.begin(message_id)
        assert await self.write(lease, 0, *texts, message_id=message_id) is AppendOutcome.OK
        assert await self.finish(lease, message_id) is AppendOutcome.OK


def question(message_id: str = ANSWER) -> NewEntry:
    """Give the user's message that an answer belongs to."""
    return NewEntry("message", f'{{"question_of":"{message_id}"}}'.encode())


def started(message_id: str = ANSWER, attempt: int = 1) -> NewEntry:
    """Give an attempt's first entry."""
    return NewEntry("start", f'{{"message_id":"{message_id}","attempt":{attempt}}}'.encode())


def chunk(text: str) -> NewEntry:
    """Give a chunk's entry; the log does not look into it."""
    return NewEntry("chunk", text.encode())


def final(message_id: str = ANSWER) -> NewEntry:
    """Give an answer's final state."""
    return NewEntry("message", f'{{"message_id":"{message_id}","is_complete":true}}'.encode())


def batch(lease: Lease, first_index: int, *texts: str) -> AppendBatch:
    """Give the chunks of ANSWER's first attempt from an index on."""
    chunks = [chunk(text) for text in texts]
    return AppendBatch(lease, ANSWER, 1, first_index, "".join(texts), chunks)


def contents(held: LogRange) -> list[NewEntry]:
    """Give what entries hold, without where they stand."""
    return [NewEntry(entry.type, entry.data) for entry in held.entries]
