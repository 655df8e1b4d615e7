"""A session with its workers, nodes and readers, in one loop that runs when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast
from unittest import mock

import msgspec

from app.chat import following, tails
from app.chat.following import Follower
from app.chat.reading import Reading
from app.domain.errors import Unavailable
from app.domain.events import new_entry
from app.domain.frames import Bye, Entries, History
from app.domain.messages import Message, Role, Status
from app.domain.position import BEFORE_ALL, Position
from app.models.client import Reasoning
from app.streams.memory_log import MemorySessionLog
from app.streams.session_log import AppendOutcome, Claimed
from app.telemetry import Metrics
from tests.support.contract_client import ContractClient
from tests.support.memory_node import DistantLog, MemoryNode, ScribedReading
from tests.support.room import SESSION
from tests.support.scribe import LEASE_MS, Scribe, Writing, tell

_Found = TypeVar("_Found")


class Reader:
    """A client with its connection, if it has one."""

    def __init__(self) -> None:
        self.client = ContractClient()
        self.earlier: list[ContractClient] = []
        """What the client was at each position that it stood at."""
        self._needs_history = False
        self._following: asyncio.Task[None] | None = None

    async def connect(
        self,
        node: MemoryNode,
        client: ContractClient | None = None,
        *,
        needs_history: bool = False,
    ) -> None:
        """Follow from where the client, or another, stands, unless the log cannot be read."""
        await self.disconnect()
        self.client = client or self.client
        self._needs_history = needs_history
        position = self.client.position
        after = None if position is None else Position.parse(position)
        with contextlib.suppress(Unavailable):
            follower = await node.join(SESSION, after)
            self._following = asyncio.create_task(self._follow(follower))

    async def disconnect(self) -> None:
        running, self._following = self._following, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])
            if not running.cancelled():
                running.result()

    @property
    def connected(self) -> bool:
        return self._following is not None

    def look(self) -> None:
        """Fail with what the client refused."""
        if self._following is not None and self._following.done():
            self._following.result()

    def remember(self) -> None:
        """Keep what the client is now."""
        if not self.earlier or self.earlier[-1].position != self.client.position:
            self.earlier.append(copy.deepcopy(self.client))

    async def _follow(self, follower: Follower) -> None:
        try:
            async for frame in follower.frames():
                if isinstance(frame, History):
                    self._needs_history = False
                    data = json.loads(msgspec.json.encode(frame))
                    self.client.apply(frame.position, "history", data)
                elif isinstance(frame, Entries):
                    assert not self._needs_history, f"{frame} after a position that never was"
                    tell(self.client, frame.entries)
                assert not isinstance(frame, Bye)
        finally:
            await follower.close()


class HardOfHearing:
    """A node that is not told of everything that is published."""

    def __init__(self, node: MemoryNode) -> None:
        self.node = node
        self.to_lose = 0
        self.seen: list[bytes] = []

    def published(self, payload: bytes) -> None:
        self.seen.append(payload)
        if self.to_lose:
            self.to_lose -= 1
        else:
            self.node.wire.deliver(SESSION, payload)


class World:
    """What there is, and what its parts do; what is done when is for a test to say."""

    def __init__(self, metrics: Metrics) -> None:
        """Begin with nothing said and nobody connected."""
        self.metrics = metrics
        self.loop = asyncio.new_event_loop()
        self.crashes: list[dict[str, Any]] = []
        """What failed where nobody waited for it."""
        self.loop.set_exception_handler(lambda _, what: self.crashes.append(what))
        self.patched = contextlib.ExitStack()
        # Small, so that a few entries cross every bound; and no time passes for nothing.
        for module, name, value in (
            (following, "_FRAME_ENTRIES", 3),
            (following, "_RETRY_SECONDS", 0),
            (tails, "_READ_ENTRIES", 2),
            (tails, "_RETRY_SECONDS", 0),
        ):
            self.patched.enter_context(mock.patch.object(module, name, value))
        self.seconds = 0.0
        self.turns = 5
        self.lost = False
        """Whether the log was ever lost."""
        epochs = itertools.count(1000)
        self.log = MemorySessionLog(
            max_entries=10,
            clock=lambda: self.seconds,
            epoch_clock=lambda: next(epochs),
            on_publish=self.published,
        )
        self.scribe = Scribe(self.log, SESSION)
        self.lease: object = None
        """The one lease under which the log may be written."""
        self.writing: dict[str, Writing] = {}
        """Workers that write, as far as they know."""
        self.past: list[Writing] = []
        """Attempts whose worker was told to stop, or ended, or died."""
        self.untold: dict[str, tuple[Writing, Message]] = {}
        """Final states that are stored, and which their workers are about to tell."""
        self.redelivered: set[str] = set()
        """Answers whose job is to be looked at again: their worker died."""
        self.remembered: dict[tuple[str, str], Writing] = {}
        self.stops: set[str] = set()
        self.texts: dict[tuple[str, int], Callable[[], str]] = {}
        self.finals: dict[str, list[Any]] = {}
        self.distant = self.run(self.make_distant())
        self.nodes = [self.new_node() for _ in range(2)]
        self.readers = [Reader(), Reader()]

    async def make_distant(self) -> DistantLog:
        return DistantLog(self.log)

    def run(self, made: Coroutine[Any, Any, _Found]) -> _Found:
        return self.loop.run_until_complete(made)

    def new_node(self) -> HardOfHearing:
        reading = cast("Reading", ScribedReading(self.scribe, self.distant.log))
        node = MemoryNode(self.distant.log, reading, ring_entries=4, metrics=self.metrics)
        return HardOfHearing(node)

    def published(self, session_id: str, payload: bytes) -> None:
        for node in self.nodes:
            node.published(payload)

    def close(self) -> None:
        """End every part, also after one of them failed."""
        with contextlib.ExitStack() as last:
            last.callback(self.patched.close)
            last.callback(self.loop.close)
            for node in self.nodes:
                last.callback(lambda tails: self.run(tails.close()), node.node.tails)
            for reader in self.readers:
                last.callback(lambda reader: self.run(reader.disconnect()), reader)

    def connect(
        self, which: int, client: ContractClient | None = None, *, needs_history: bool = False
    ) -> None:
        node, reader = self.nodes[which].node, self.readers[which]
        self.run(reader.connect(node, client, needs_history=needs_history))

    def may_be_lost(self) -> bool:
        """Say whether nobody would take the loss for the time before the log had begun.

        A log that begins and is lost before a follower at 0-0 looks once is the one thing that it
        cannot tell: it is given what is stored with the next event, or when it connects anew.
        """
        return self.position() == BEFORE_ALL or not any(
            reader.connected and reader.client.position in {None, str(BEFORE_ALL)}
            for reader in self.readers
        )

    def position(self) -> Position:
        (position,) = self.run(self.log.tails([SESSION]))
        return position

    def claim(self, answer: str, worker: str) -> Claimed | None:
        claimed = self.run(self.log.claim(SESSION, answer, worker, LEASE_MS))
        if not isinstance(claimed, Claimed):
            return None
        self.lease = claimed.lease
        return claimed

    def append(self, worker: str, pieces: Sequence[str | Reasoning]) -> None:
        """Write on, and do what a worker does with the outcome."""
        writing = self.writing[worker]
        match self.run(writing.write(*pieces)):
            case AppendOutcome.OK:
                assert writing.lease is self.lease, "a second voice"
            case AppendOutcome.CANCELLED:
                self.store(worker, Status.CANCELLED)
            case AppendOutcome.SUPERSEDED:
                self.past.append(self.writing.pop(worker))
            case AppendOutcome.LOST:
                self.remembered[worker, writing.answer] = writing
                self.past.append(self.writing.pop(worker))

    def settle(self, claimed: Claimed, answer: str) -> None:
        """End an answer that is to be stopped, as ``Settling`` does."""
        text = claimed.active.text if claimed.active else ""
        attempt = self.scribe.messages[answer].attempt
        thoughts = claimed.active.reasoning if claimed.active else ""
        final = self.scribe.store_final(answer, attempt, Status.CANCELLED, text, thoughts)
        assert final is not None
        self.finals.setdefault(answer, []).append(shown_as(final))
        self.run(self.log.finish(claimed.lease, answer, attempt, new_entry(final)))
        self.lease = None

    def store(self, worker: str, status: Status) -> None:
        writing = self.writing.pop(worker)
        final = self.scribe.store_final(
            writing.answer, writing.attempt, status, writing.text, writing.thoughts
        )
        if final is None:
            self.past.append(writing)
            return
        self.finals.setdefault(writing.answer, []).append(shown_as(final))
        self.untold[f"{writing.answer} {writing.attempt}"] = (writing, final)

    def tell_final(self, key: str) -> None:
        """Tell a final state, under the lease that it was written with or another."""
        writing, final = self.untold[key]
        entry = new_entry(final)
        finish = self.log.finish(writing.lease, final.message_id, final.attempt, entry)
        outcome = self.run(finish)
        if outcome is AppendOutcome.LOST:
            # As ``Attempt`` does in its next round: what is stored by then is told.
            claimed = self.claim(final.message_id, writing.lease.node_id)
            if claimed is None:
                return
            stored = self.scribe.messages[final.message_id]
            if stored.is_complete:
                entry = new_entry(stored)
                self.run(self.log.finish(claimed.lease, stored.message_id, stored.attempt, entry))
            else:
                self.run(self.log.release(claimed.lease))
        elif outcome is AppendOutcome.SUPERSEDED:
            self.redelivered.add(final.message_id)
        del self.untold[key]
        if outcome is not AppendOutcome.SUPERSEDED:
            self.lease = None
        self.past.append(writing)

    def was_said(self, shown: dict[str, Any]) -> None:
        """Fail for anything but a stored message, or a beginning of one attempt's text."""
        message_id = shown["message_id"]
        stored = self.scribe.messages[message_id]
        if stored.role is Role.USER:
            assert shown == shown_as(stored)
        elif shown["is_complete"]:
            assert shown in self.finals[message_id]
        else:
            text = self.texts.get((message_id, shown["attempt"]), str)
            assert text().startswith(shown["content"])


def shown_as(message: Message) -> Any:
    """Give a message as a client has it."""
    return json.loads(msgspec.json.encode(message))
