"""Both session logs go the same random way and are the same after every step.

So what the state machine over the log in memory finds (``tests/unit``) is true of the product's.
Beside them two readers of the real one hold it to the contract: whatever position they come back
from, they are given everything after it or the whole state, and have in the end what is stored.

The walks are the same each time. To go further, and elsewhere:

    MACHINE_EXAMPLES=500 pytest --timeout 0 tests/integration/test_session_log_equivalence.py
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.chat.reading import with_text_so_far
from app.domain.events import new_entry
from app.domain.lease import Lease
from app.domain.messages import Message, Status
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import judge
from app.models.client import Reasoning
from app.streams.publication import parse_publication
from app.streams.session_log import (
    AppendBatch,
    AppendOutcome,
    Claimed,
    Held,
    LogRange,
    SessionLog,
    Snapshot,
)
from tests.support.contract_client import ContractClient
from tests.support.scribe import Scribe, Writing, tell
from tests.support.session_logs import LogUnderTest, MemoryUnderTest, valkey_under_test

_EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "0"))
_SESSION = "s-1"
_MAX_ENTRIES = 12
_LEASE_MS = 600_000  # a lease ends when the walk says so, however slow the machine
_FINAL = st.sampled_from([Status.COMPLETE, Status.CANCELLED, Status.FAILED])
_WORKERS = st.sampled_from(["worker-1", "worker-2"])
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
_PIECES = st.lists(_TEXTS | _TEXTS | _TEXTS.filter(bool).map(Reasoning), min_size=1, max_size=6)

_Found = TypeVar("_Found")


class _Side:
    """One implementation with the conversation that is written into it."""

    def __init__(self, under_test: LogUnderTest) -> None:
        self.under_test = under_test
        self.scribe = Scribe(under_test.log, _SESSION)
        self.writings: list[Writing] = []
        self.sent: list[AppendBatch] = []
        self.submits: list[Message] = []
        self.claimed: Claimed | None = None
        self.epochs: list[int] = []

    @property
    def log(self) -> SessionLog:
        return self.scribe.log

    def place(self, position: Position) -> tuple[int, int]:
        """Give a position with its epoch counted instead of named by a clock."""
        if position == BEFORE_ALL:
            return (-1, 0)
        if position.epoch not in self.epochs:
            assert position.epoch > max(self.epochs, default=0), "an epoch that does not grow"
            self.epochs.append(position.epoch)
        return (self.epochs.index(position.epoch), position.seq)


class _Seen(NamedTuple):
    """Everything of one log that anybody can see."""

    entries: list[tuple[tuple[int, int], str, bytes]]
    first: tuple[int, int] | None
    last: tuple[int, int]
    original: bool
    active: object
    published: list[tuple[tuple[int, int], int, bool]]
    stops: list[Any]


class SessionLogs(RuleBasedStateMachine):
    """One walk over two logs."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.opened = contextlib.AsyncExitStack()
        self.url = url
        self.reader = ContractClient()
        self.sleeper = ContractClient()
        self.places: dict[Position, ContractClient] = {}
        """Positions that the log had, each with what a client there has."""
        self.started: tuple[str, int] | None = None
        self.told: dict[str, Any] = {}
        """Final states that the log told and that hold."""

    def run(self, made: Awaitable[_Found]) -> _Found:
        return self.loop.run_until_complete(_awaited(made))

    def both(self, do: Callable[[_Side], Coroutine[Any, Any, _Found]]) -> _Found:
        """Do the same on both sides; what comes of it must be the same."""
        first, second = (self.run(do(side)) for side in self.sides)
        assert first == second
        return second

    @initialize()
    def open(self) -> None:
        valkey = self.run(
            self.opened.enter_async_context(valkey_under_test(self.url, max_entries=_MAX_ENTRIES))
        )
        self.run(valkey.lose())
        # Trimming is exact where a node of the stream's tree holds one entry.
        self.run(valkey.set_node_entries(1))
        memory = MemoryUnderTest(max_entries=_MAX_ENTRIES)
        self.memory, self.valkey = self.sides = (_Side(memory), _Side(valkey))

    def teardown(self) -> None:
        async def close() -> None:
            with contextlib.suppress(AttributeError):
                await self.valkey.under_test.set_node_entries(100)  # type: ignore[attr-defined]
            await self.opened.aclose()

        self.run(close())
        self.loop.close()

    # What is written.

    @precondition(lambda self: self.valkey.scribe.unfinished is None)
    @rule(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3))
    def ask(self, text: str) -> None:
        self.both(lambda side: side.scribe.ask(text))
        for side in self.sides:
            side.submits.append(list(side.scribe.messages.values())[-2])

    @precondition(lambda self: self.valkey.scribe.messages and not self.valkey.scribe.unfinished)
    @rule()
    def ask_again(self) -> None:
        answer = list(self.valkey.scribe.messages)[-1]
        self.told.pop(answer, None)
        self.both(lambda side: side.scribe.ask_again(answer))

    @precondition(lambda self: self.valkey.submits)
    @rule(data=st.data())
    def submit_late(self, data: st.DataObject) -> None:
        """A submit under way for long: for the answer of now, or for one that is long final."""
        which = data.draw(st.integers(0, len(self.valkey.submits) - 1))

        async def again(side: _Side) -> tuple[object, ...]:
            question = side.submits[which]
            answer = question.message_id.replace("q-", "a-")
            entry = new_entry(question)
            submitted = await side.log.submit(_SESSION, answer, 0, [entry], pristine=False)
            return (*side.place(submitted.position), submitted.untold)

        self.both(again)
        self.started = None

    @rule(title=st.sampled_from(["Trees", "Boats"]))
    def rename(self, title: str) -> None:
        self.both(lambda side: side.scribe.rename(title))

    @precondition(lambda self: self.valkey.scribe.messages)
    @rule(worker=_WORKERS)
    def claim(self, worker: str) -> None:
        answer = list(self.valkey.scribe.messages)[-1]

        async def claim(side: _Side) -> object:
            found = await side.log.claim(_SESSION, answer, worker, _LEASE_MS)
            if isinstance(found, Held):
                return None
            token = side.claimed.lease.token if side.claimed else 0
            assert found.lease.token > token
            side.claimed = found
            return found.active, found.lease.node_id

        self.both(claim)

    @precondition(lambda self: self.valkey.claimed and self.valkey.scribe.unfinished)
    @rule(keep=st.booleans())
    def start(self, keep: bool) -> None:
        async def start(side: _Side) -> AppendOutcome:
            answer = side.scribe.unfinished
            assert answer is not None
            assert side.claimed is not None
            # Its text is what the log knew when it was claimed, for this answer or none.
            claimed = side.claimed
            if claimed.active is not None and claimed.active.message_id != answer:
                claimed = claimed._replace(active=None)
            writing = await side.scribe.start(claimed, answer, keep=keep)
            side.writings.append(writing)
            return writing.outcome

        if self.both(start) is AppendOutcome.OK:
            writing = self.valkey.writings[-1]
            self.started = (writing.answer, writing.attempt)
            self.told.pop(writing.answer, None)

    @precondition(lambda self: self.valkey.writings)
    @rule(data=st.data(), pieces=_PIECES)
    def write(self, data: st.DataObject, pieces: list[str | Reasoning]) -> None:
        which = self._which_writing(data)

        async def write(side: _Side) -> AppendOutcome:
            side.sent.append(side.writings[which].batch(*pieces))
            return await side.writings[which].write(*pieces)

        self.one_voice(self.both(write), self.valkey.writings[which].lease)

    @precondition(lambda self: self.valkey.sent)
    @rule(data=st.data())
    def send_late(self, data: st.DataObject) -> None:
        """A flush under way for long, or sent again."""
        which = data.draw(st.integers(0, len(self.valkey.sent) - 1))
        (outcome,) = self.both(lambda side: side.log.append([side.sent[which]]))
        self.one_voice(outcome, self.valkey.sent[which].lease)

    def one_voice(self, outcome: AppendOutcome, lease: Lease) -> None:
        """Nothing is done under any lease but the last that was given out."""
        newest = self.valkey.claimed
        assert newest is not None
        assert outcome is not AppendOutcome.OK or lease == newest.lease

    @precondition(lambda self: self.valkey.writings)
    @rule(data=st.data(), status=_FINAL)
    def finish(self, data: st.DataObject, status: Status) -> None:
        which = self._which_writing(data)
        outcome = self.both(lambda side: side.writings[which].finish(status))
        writing = self.valkey.writings[which]
        if outcome is AppendOutcome.OK:
            self.started = None
            self.told[writing.answer] = _shown(self.valkey.scribe.messages[writing.answer])

    @precondition(lambda self: self.valkey.writings)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        which = self._which_writing(data)
        self.both(lambda side: side.log.release(side.writings[which].lease))

    @precondition(lambda self: self.valkey.writings)
    @rule()
    def renew(self) -> None:
        self.both(
            lambda side: side.log.renew(
                [(each.lease, each.answer, each.attempt) for each in side.writings], _LEASE_MS
            )
        )

    @precondition(lambda self: self.valkey.scribe.messages)
    @rule(data=st.data(), attempt=st.integers(0, 6))
    def cancel(self, data: st.DataObject, attempt: int) -> None:
        answer = data.draw(st.sampled_from(sorted(self.valkey.scribe.messages)))
        self.both(lambda side: side.log.cancel(_SESSION, answer, attempt))

    # What goes wrong.

    @rule()
    def end_lease(self) -> None:
        self.both(lambda side: side.under_test.end_lease(_SESSION))

    @rule()
    def lose_log(self) -> None:
        self.both(lambda side: side.under_test.lose_log(_SESSION))

    @rule()
    def lose_everything(self) -> None:
        self.started = None
        self.both(lambda side: side.under_test.lose())

    @rule()
    def restart(self) -> None:
        self.both(lambda side: side.under_test.restart(_SESSION))

    # Who reads.

    @rule()
    def wake(self) -> None:
        """The second reader has not been here for a while."""
        self.catch_up(self.sleeper)

    @precondition(lambda self: self.places)
    @rule(data=st.data(), limit=st.integers(1, 4))
    def resume(self, data: st.DataObject, limit: int) -> None:
        """A tab that was put to sleep comes back with what it had."""
        position = data.draw(st.sampled_from(sorted(self.places)))
        self.catch_up(copy.deepcopy(self.places[position]), limit)

    @rule(epoch=st.integers(-2, 2), seq=st.integers(0, 40))
    def come_from_nowhere(self, epoch: int, seq: int) -> None:
        """Whatever is served without the whole state follows on a position that the log had."""
        now = self.valkey_tail()
        position = Position(max(now.epoch + epoch, 0), seq)
        held = self.run(self.valkey.log.read(_SESSION, position, 100))
        if judge(position, held.first, held.last, original=held.original) is None and held.entries:
            begin = Position(held.last.epoch, 0) if position == BEFORE_ALL else position.plus(1)
            served = [entry.position for entry in held.entries]
            assert served == [begin.plus(number) for number in range(len(served))]
            assert served[-1] == held.last

    # What must be true after every step.

    @invariant()
    def both_are_the_same(self) -> None:
        memory, valkey = (self.run(_see(side)) for side in self.sides)
        assert memory == valkey

    @invariant()
    def a_reader_has_what_is_stored(self) -> None:
        self.catch_up(self.reader)
        position = Position.parse(self.reader.position or str(BEFORE_ALL))
        self.places[position] = copy.deepcopy(self.reader)
        if len(self.places) > 20:
            del self.places[min(self.places)]

    def catch_up(self, client: ContractClient, limit: int = 100) -> None:
        """Give a client everything after its position, or the whole state, until nothing is new."""
        if client.position == str(BEFORE_ALL) and self.valkey_tail() == BEFORE_ALL:
            # As ``Following`` does: without a log, what is stored tells whether anything was said.
            self.whole(client)
        for _ in range(_MAX_ENTRIES * 2):
            position = None if client.position is None else Position.parse(client.position)
            if position is not None:
                held = self.run(self.valkey.log.read(_SESSION, position, limit))
                if judge(position, held.first, held.last, original=held.original) is None:
                    tell(client, held.entries)
                    if not held.entries:
                        break
                    continue
            self.whole(client)
        else:
            raise AssertionError(f"{client.position} of {self.valkey_tail()} is never the last")
        snapshot = self.run(self.valkey.log.snapshot(_SESSION))
        assert client.position == str(snapshot.position)
        for answer, final in self.told.items():
            assert client.messages[answer] == final
        if snapshot.active is not None and self.started is not None:
            active = snapshot.active
            assert (active.message_id, active.attempt) == self.started
            assert client.text(active.message_id) == active.text
            assert client.reasoning(active.message_id) == (active.reasoning or None)

    def whole(self, client: ContractClient) -> None:
        """Give the whole state, as ``Reading`` reads it."""
        snapshot = self.run(self.valkey.log.snapshot(_SESSION))
        messages = with_text_so_far(list(self.valkey.scribe.messages.values()), snapshot.active)
        history = {
            "messages": [_shown(message) for message in messages],
            "position": str(snapshot.position),
            "reason": "initial",
        }
        client.apply(str(snapshot.position), "history", history)

    def valkey_tail(self) -> Position:
        (position,) = self.run(self.valkey.log.tails([_SESSION]))
        return position

    def _which_writing(self, data: st.DataObject) -> int:
        """Mostly the newest, whose lease may hold; sometimes one of those before it."""
        last = len(self.valkey.writings) - 1
        return data.draw(st.just(last) | st.just(last) | st.integers(0, last))


async def _see(side: _Side) -> _Seen:
    held: LogRange = await side.log.read(_SESSION, BEFORE_ALL, 10_000)
    snapshot: Snapshot = await side.log.snapshot(_SESSION)
    assert snapshot.position == held.last
    published = [parse_publication(one) for one in await side.under_test.published(_SESSION)]
    return _Seen(
        [(side.place(entry.position), entry.type, entry.data) for entry in held.entries],
        None if held.first is None else side.place(held.first),
        side.place(held.last),
        held.original,
        snapshot.active,
        [(side.place(p.entries[0].position), len(p.entries), p.original) for p in published],
        await side.under_test.stops(),
    )


def _shown(message: Message) -> Any:
    return json.loads(msgspec.json.encode(message))


async def _awaited(made: Awaitable[_Found]) -> _Found:
    return await made


def test_both_logs_go_the_same_way(redis_url: str) -> None:
    class Walk(SessionLogs):
        def __init__(self) -> None:
            super().__init__(redis_url)

    run_state_machine_as_test(
        Walk,
        settings=settings(
            max_examples=_EXAMPLES or 12,
            stateful_step_count=30,
            deadline=None,
            derandomize=not _EXAMPLES,
            suppress_health_check=list(HealthCheck),
        ),
    )
