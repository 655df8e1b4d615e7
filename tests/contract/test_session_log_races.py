"""Calls that come too late, twice, or in another order than they were made in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from app.domain.events import Entry, Start, new_entry
from app.domain.messages import Status
from app.domain.position import BEFORE_ALL
from app.streams.session_log import (
    ActiveAnswer,
    AppendBatch,
    AppendOutcome,
    Claimed,
    SessionLog,
    Submitted,
)
from tests.support.contract_client import ContractClient
from tests.support.scribe import LEASE_MS, Scribe, Writing, known, tell
from tests.support.session_logs import LogUnderTest

_SESSION = "s-1"


@pytest.fixture
def scribe(under_test: LogUnderTest) -> Scribe:
    return Scribe(under_test.log, _SESSION)


async def _held(scribe: Scribe) -> list[Entry]:
    return (await scribe.log.read(scribe.session_id, BEFORE_ALL, 10_000)).entries


async def _begin(scribe: Scribe, answer: str, node_id: str = "worker-1") -> Writing:
    writing = await scribe.begin(answer, node_id)
    assert writing is not None
    assert writing.outcome is AppendOutcome.OK
    return writing


async def _claim(scribe: Scribe, answer: str, node_id: str) -> Claimed:
    claimed = await scribe.log.claim(_SESSION, answer, node_id, LEASE_MS)
    assert isinstance(claimed, Claimed)
    return claimed


def _batch(writing: Writing, *pieces: str) -> AppendBatch:
    """Make a flush without sending it, and go on as if it had been."""
    batch = writing.batch(*pieces)
    writing.text += batch.text
    writing.index += len(pieces)
    return batch


class TestStaleHolder:
    """Never two voices: whatever an old holder tries after another has begun, nothing gets in."""

    @pytest.fixture
    async def stale(self, scribe: Scribe, under_test: LogUnderTest) -> Writing:
        writing = await _begin(scribe, await scribe.ask(), "worker-1")
        await writing.write("It was a ")
        await under_test.end_lease(_SESSION)
        return writing

    async def test_between_two_leases_nothing_gets_in(self, scribe: Scribe, stale: Writing) -> None:
        before = await _held(scribe)
        assert await stale.write("dark night") is AppendOutcome.LOST
        assert await stale.finish() is AppendOutcome.LOST
        assert await _held(scribe) == before

    @pytest.mark.parametrize("moment", ["claimed", "started", "written", "finished"])
    async def test_after_another_took_over_nothing_gets_in(
        self, scribe: Scribe, stale: Writing, moment: str
    ) -> None:
        claimed = await _claim(scribe, stale.answer, "worker-2")
        other: Writing | None = None
        if moment != "claimed":
            other = await scribe.start(claimed, stale.answer)
        if other is not None and moment in {"written", "finished"}:
            await other.write("bright day")
        if other is not None and moment == "finished":
            await other.finish()
        before, snapshot = await _held(scribe), await scribe.log.snapshot(_SESSION)
        refused = AppendOutcome.LOST if moment == "finished" else AppendOutcome.SUPERSEDED
        assert await stale.write("dark night") is refused
        assert await stale.write_again() is refused
        started = await scribe.log.start(
            stale.lease,
            stale.answer,
            2,
            kept="",
            entries=[new_entry(Start(stale.answer, 2, "demo", ""))],
            entries_if_unknown=[],
        )
        assert started is refused
        final = new_entry(scribe.messages[stale.answer])
        assert await scribe.log.finish(stale.lease, stale.answer, 1, final) is refused
        assert await _held(scribe) == before
        assert await scribe.log.snapshot(_SESSION) == snapshot

    async def test_a_flush_writes_for_those_who_may_and_for_nobody_else(
        self, scribe: Scribe, stale: Writing
    ) -> None:
        other = Scribe(scribe.log, "s-2")
        there = await _begin(other, await other.ask())
        current = await _begin(scribe, stale.answer, "worker-2")
        outcomes = await scribe.log.append(
            [_batch(stale, "dark night"), _batch(there, "there"), _batch(current, "bright day")]
        )
        assert outcomes == [AppendOutcome.SUPERSEDED, AppendOutcome.OK, AppendOutcome.OK]
        assert known((await scribe.log.snapshot("s-1")).active).text == "It was a bright day"
        assert known((await scribe.log.snapshot("s-2")).active).text == "there"


class TestSentTwice:
    """A lost reply: the very same call once more, which must change nothing."""

    @pytest.mark.parametrize(
        "call", ["submit", "submit again", "start", "append", "renew", "release", "cancel"]
    )
    async def test_the_second_changes_nothing(
        self, scribe: Scribe, under_test: LogUnderTest, call: str
    ) -> None:
        answer = await scribe.ask("Why?")
        question = new_entry(scribe.messages["q-1"])
        claimed = await _claim(scribe, answer, "worker-1")
        lease = claimed.lease
        start = new_entry(Start(answer, 1, "demo", "kept"))
        batch = AppendBatch(lease, answer, 1, 0, "text", [start])
        log = scribe.log
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "submit": lambda: log.submit(_SESSION, answer, 0, [question], pristine=True),
            "start": lambda: log.start(
                lease, answer, 1, kept="kept", entries=[start], entries_if_unknown=[question]
            ),
            "append": lambda: log.append([batch]),
            "renew": lambda: log.renew([(lease, answer, 1)], LEASE_MS),
            "cancel": lambda: log.cancel(_SESSION, answer, 1),
            "release": lambda: log.release(lease),
            "submit again": lambda: log.submit(_SESSION, answer, 7, [], pristine=False),
        }
        once: object = None
        for name, make in calls.items():
            once = await make()
            if name == call:
                break
        before = (await log.snapshot(_SESSION), await _held(scribe))
        await under_test.published(_SESSION)
        assert await calls[call]() == once
        assert (await log.snapshot(_SESSION), await _held(scribe)) == before
        assert await under_test.published(_SESSION) == []

    async def test_a_finish_sent_twice_says_so_and_appends_once(self, scribe: Scribe) -> None:
        """The lease went with the first; who claims again finds nothing left to do."""
        writing = await _begin(scribe, await scribe.ask())
        assert await writing.finish() is AppendOutcome.OK
        before = await _held(scribe)
        final = new_entry(scribe.messages[writing.answer])
        again = await scribe.log.finish(writing.lease, writing.answer, 1, final)
        assert again is AppendOutcome.LOST
        assert await _held(scribe) == before
        assert (await _claim(scribe, writing.answer, "worker-1")).active is None

    async def test_a_flush_under_way_that_arrives_after_its_repeat(self, scribe: Scribe) -> None:
        """And after what came next: it was carried out late, and must not be carried out again."""
        writing = await _begin(scribe, await scribe.ask())
        slow = _batch(writing, "one ", "two ")
        assert await scribe.log.append([slow]) == [AppendOutcome.OK]
        assert await scribe.log.append([slow]) == [AppendOutcome.OK]
        after = _batch(writing, "three")
        assert await scribe.log.append([after]) == [AppendOutcome.OK]
        before = await _held(scribe)
        assert await scribe.log.append([slow]) == [AppendOutcome.LOST]
        assert await _held(scribe) == before
        assert await scribe.log.append([after]) == [AppendOutcome.OK]
        assert await _held(scribe) == before
        assert known((await scribe.log.snapshot(_SESSION)).active).text == "one two three"

    async def test_a_flush_before_its_turn_is_refused(self, scribe: Scribe) -> None:
        writing = await _begin(scribe, await scribe.ask())
        missing, early = _batch(writing, "one "), _batch(writing, "two")
        before = await _held(scribe)
        assert await scribe.log.append([early]) == [AppendOutcome.LOST]
        assert await _held(scribe) == before
        assert await scribe.log.append([missing, early]) == [AppendOutcome.OK] * 2

    async def test_a_flush_of_an_earlier_attempt_is_no_part_of_the_next(
        self, scribe: Scribe
    ) -> None:
        """Both counted from 0: the number of chunks alone would let it through."""
        answer = await scribe.ask()
        first = await _begin(scribe, answer)
        slow = _batch(first, "one ")
        second = await _begin(scribe, answer)
        assert await scribe.log.append([slow]) == [AppendOutcome.SUPERSEDED]
        under_the_new_lease = slow._replace(lease=second.lease)
        assert await scribe.log.append([under_the_new_lease]) == [AppendOutcome.LOST]
        assert known((await scribe.log.snapshot(_SESSION)).active).text == ""

    async def test_an_attempt_is_begun_once_whatever_was_written_since(
        self, scribe: Scribe
    ) -> None:
        writing = await _begin(scribe, await scribe.ask())
        await writing.write("text")
        before = await _held(scribe)
        again = await scribe.log.start(
            writing.lease,
            writing.answer,
            1,
            kept="",
            entries=[new_entry(Start(writing.answer, 1, "demo", ""))],
            entries_if_unknown=[],
        )
        assert again is AppendOutcome.OK
        assert await _held(scribe) == before
        assert await writing.write(" goes on") is AppendOutcome.OK


class TestSubmitAndWorker:
    """The web node's ``submit`` and the worker's ``start`` race; either may come first."""

    async def _overtaken(self, scribe: Scribe) -> str:
        """Ask, so that the worker hears of it before the log does."""
        log = scribe.log
        scribe.log = cast("SessionLog", _Deaf())
        answer = await scribe.ask()
        scribe.log = log
        return answer

    async def _submit(self, scribe: Scribe) -> None:
        question = new_entry(scribe.messages["q-1"])
        await scribe.log.submit(_SESSION, "a-1", 0, [question], pristine=True)

    async def test_a_worker_that_is_faster_tells_the_question_itself(self, scribe: Scribe) -> None:
        writing = await _begin(scribe, await self._overtaken(scribe))
        await writing.write("fast")
        kinds = [entry.type for entry in await _held(scribe)]
        assert kinds == ["message", "start", "chunk"]
        await self._submit(scribe)
        assert [entry.type for entry in await _held(scribe)] == kinds
        assert known((await scribe.log.snapshot(_SESSION)).active).text == "fast"
        assert await writing.write("er") is AppendOutcome.OK

    async def test_a_question_that_arrives_when_all_is_said_changes_no_text(
        self, scribe: Scribe
    ) -> None:
        writing = await _begin(scribe, await self._overtaken(scribe))
        await writing.write("fastest")
        await writing.finish()
        await self._submit(scribe)
        client = tell(ContractClient(), await _held(scribe))
        assert client.text(writing.answer) == "fastest"
        assert client.is_complete(writing.answer)
        assert list(client.messages) == ["q-1", "a-1"]
        # And the next turn is like any other.
        after = await _begin(scribe, await scribe.ask())
        await after.write("next")
        await after.finish()
        assert tell(ContractClient(), await _held(scribe)).text(after.answer) == "next"

    async def test_the_next_question_finds_that_an_end_was_never_told(self, scribe: Scribe) -> None:
        """The worker died between the commit of the final state and its entry in the log."""
        writing = await _begin(scribe, await scribe.ask())
        await writing.write("all but told")
        question = new_entry(scribe.messages["q-1"])
        submitted = await scribe.log.submit(_SESSION, "a-2", 0, [question], pristine=False)
        assert submitted.untold == writing.answer
        again = await scribe.log.submit(_SESSION, "a-2", 0, [question], pristine=False)
        assert again.untold is None

    async def test_an_end_that_was_told_is_not_told_again(self, scribe: Scribe) -> None:
        writing = await _begin(scribe, await scribe.ask())
        await writing.write("told")
        await writing.finish()
        question = new_entry(scribe.messages["q-1"])
        submitted = await scribe.log.submit(_SESSION, "a-2", 0, [question], pristine=False)
        assert submitted.untold is None
        # The same answer once more is no other one.
        submitted = await scribe.log.submit(_SESSION, "a-2", 1, [], pristine=False)
        assert submitted.untold is None

    async def test_the_next_question_is_not_harmed_by_the_end_of_the_last(
        self, scribe: Scribe
    ) -> None:
        """The database lets the next one in before the final state is told."""
        first = await _begin(scribe, await scribe.ask("One?"))
        await first.write("first")
        final = scribe.store_final(first.answer, 1, Status.COMPLETE, first.text)
        assert final is not None
        answer = await scribe.ask("Two?")
        told = await scribe.log.finish(first.lease, first.answer, 1, new_entry(final))
        assert told is AppendOutcome.OK
        awaited = known((await scribe.log.snapshot(_SESSION)).active)
        assert awaited == ActiveAnswer(answer, 0, 0, "")
        second = await _begin(scribe, answer, "worker-2")
        assert await second.write("second") is AppendOutcome.OK
        held = await _held(scribe)
        assert [entry.type for entry in held] == [
            # The end of the first is told by who asks, and by its late worker.
            "message", "start", "chunk", "message", "message", "message", "start", "chunk",
        ]  # fmt: skip
        await second.finish()
        client = tell(ContractClient(), held + (await _held(scribe))[-1:])
        assert (client.text("a-1"), client.text("a-2")) == ("first", "second")

    async def test_the_same_question_again_is_not_harmed_by_the_end_of_the_last(
        self, scribe: Scribe
    ) -> None:
        first = await _begin(scribe, await scribe.ask())
        await first.write("first")
        final = scribe.store_final(first.answer, 1, Status.COMPLETE, first.text)
        assert final is not None
        await scribe.ask_again(first.answer)
        awaited = known((await scribe.log.snapshot(_SESSION)).active)
        assert (awaited.text, awaited.next_index) == ("", 0)
        await scribe.log.finish(first.lease, first.answer, 1, new_entry(final))
        assert known((await scribe.log.snapshot(_SESSION)).active) == awaited
        second = await _begin(scribe, first.answer, "worker-2")
        assert second.text == ""
        kinds = [entry.type for entry in await _held(scribe)]
        assert kinds == ["message", "start", "chunk", "message", "start"]
        await second.write("second")
        await second.finish()
        client = tell(ContractClient(), await _held(scribe))
        assert client.text(first.answer) == "second"


class _Deaf:
    """A log that is not there when an answer is asked for."""

    async def submit(self, *_: object, **__: object) -> Submitted:
        """Come too late."""
        return Submitted(BEFORE_ALL, None)


class TestStop:
    async def test_an_append_before_it_was_done_and_says_so(self, scribe: Scribe) -> None:
        """Its reply was lost and the stop came between: the text is in the log, and counts."""
        writing = await _begin(scribe, await scribe.ask())
        batch = _batch(writing, "so far")
        await scribe.log.append([batch])
        await scribe.log.cancel(_SESSION, writing.answer, 1)
        assert await scribe.log.append([batch]) == [AppendOutcome.OK]
        assert await writing.finish(Status.CANCELLED) is AppendOutcome.OK
        client = tell(ContractClient(), await _held(scribe))
        assert client.text(writing.answer) == "so far"
        assert client.messages[writing.answer]["status"] == "cancelled"

    @pytest.mark.parametrize("how", ["silently", "in good order"])
    async def test_it_outlives_the_worker(
        self, scribe: Scribe, under_test: LogUnderTest, how: str
    ) -> None:
        writing = await _begin(scribe, await scribe.ask())
        await writing.write("so far")
        # The next attempt was begun in the database when the stop was committed there.
        await scribe.log.cancel(_SESSION, writing.answer, 2)
        if how == "silently":
            await under_test.end_lease(_SESSION)
        else:
            await scribe.log.release(writing.lease)
        second = await _begin(scribe, writing.answer, "worker-2")
        assert await second.write(" and on") is AppendOutcome.CANCELLED

    async def test_it_is_over_with_the_answer(self, scribe: Scribe) -> None:
        """Asked for again, the same answer is written to its end."""
        writing = await _begin(scribe, await scribe.ask())
        await scribe.log.cancel(_SESSION, writing.answer, 1)
        await writing.finish(Status.CANCELLED)
        await scribe.ask_again(writing.answer)
        again = await _begin(scribe, writing.answer)
        assert await again.write("whole") is AppendOutcome.OK

    async def test_one_that_came_too_late_stops_nothing_later(self, scribe: Scribe) -> None:
        writing = await _begin(scribe, await scribe.ask())
        await writing.finish()
        await scribe.log.cancel(_SESSION, writing.answer, 1)
        following = await _begin(scribe, await scribe.ask())
        assert await following.write("text") is AppendOutcome.OK
        await following.finish()
        await scribe.ask_again(following.answer)
        again = await _begin(scribe, following.answer)
        assert await again.write("text") is AppendOutcome.OK
