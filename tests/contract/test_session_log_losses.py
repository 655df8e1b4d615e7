"""Redis loses things: what the log promises when it was emptied, in part, or restarted."""

from __future__ import annotations

import pytest

from app.domain.events import Entry
from app.domain.frames import HistoryReason
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import judge
from app.streams.publication import parse_publication
from app.streams.session_log import ActiveAnswer, AppendOutcome, Claimed, Snapshot
from tests.support.contract_client import ContractClient
from tests.support.scribe import LEASE_MS, Scribe, Writing, known, tell
from tests.support.session_logs import LogUnderTest

_SESSION = "s-1"


@pytest.fixture
def scribe(under_test: LogUnderTest) -> Scribe:
    return Scribe(under_test.log, _SESSION)


async def _held(scribe: Scribe) -> list[Entry]:
    return (await scribe.log.read(scribe.session_id, BEFORE_ALL, 10_000)).entries


async def _tail(scribe: Scribe) -> Position:
    (position,) = await scribe.log.tails([scribe.session_id])
    return position


async def _begin(scribe: Scribe, answer: str, node_id: str = "worker-1") -> Writing:
    writing = await scribe.begin(answer, node_id)
    assert writing is not None
    assert writing.outcome is AppendOutcome.OK
    return writing


async def _judged(scribe: Scribe, position: Position) -> HistoryReason | None:
    held = await scribe.log.read(_SESSION, position, 10)
    return judge(position, held.first, held.last, original=held.original)


async def _lose(under_test: LogUnderTest, what: str) -> None:
    if what == "the log":
        await under_test.lose_log(_SESSION)
    else:
        await under_test.lose()


@pytest.mark.parametrize("loss", ["the log", "everything"])
class TestEpochs:
    async def test_each_new_beginning_has_a_larger_one(
        self, scribe: Scribe, under_test: LogUnderTest, loss: str
    ) -> None:
        seen = []
        for _ in range(4):
            await scribe.rename("Title")
            seen.append(await _tail(scribe))
            await _lose(under_test, loss)
            assert await _tail(scribe) == BEFORE_ALL
        assert [position.seq for position in seen] == [0, 0, 0, 0]
        epochs = [position.epoch for position in seen]
        assert epochs == sorted(set(epochs))

    async def test_the_first_entry_of_a_further_one_is_not_the_session_s_first(
        self, scribe: Scribe, under_test: LogUnderTest, loss: str
    ) -> None:
        await scribe.ask()
        assert (await scribe.log.read(_SESSION, BEFORE_ALL, 10)).original
        before = await _tail(scribe)
        await _lose(under_test, loss)
        await under_test.published(_SESSION)
        await scribe.ask()
        assert not (await scribe.log.read(_SESSION, BEFORE_ALL, 10)).original
        (payload,) = await under_test.published(_SESSION)
        assert not parse_publication(payload).original
        assert await _judged(scribe, before) is HistoryReason.EPOCH
        assert await _judged(scribe, BEFORE_ALL) is HistoryReason.EPOCH

    async def test_a_holder_learns_that_its_log_is_gone(
        self, scribe: Scribe, under_test: LogUnderTest, loss: str
    ) -> None:
        writing = await _begin(scribe, await scribe.ask())
        await writing.write("so far")
        await _lose(under_test, loss)
        assert await writing.write(" and on") is AppendOutcome.LOST
        assert await writing.write_again() is AppendOutcome.LOST
        # Not one chunk begins a log: it would look like a whole answer's first.
        assert await _tail(scribe) == BEFORE_ALL
        assert await _held(scribe) == []

    async def test_the_answer_goes_on_from_what_its_worker_remembers(
        self, scribe: Scribe, under_test: LogUnderTest, loss: str
    ) -> None:
        answer = await scribe.ask("Why?")
        first = await _begin(scribe, answer)
        await first.write("so ", "far")
        await _lose(under_test, loss)
        assert await first.write(", so good") is AppendOutcome.LOST
        second = await scribe.begin(answer, "worker-1", remembered=first.text)
        assert second is not None
        assert second.outcome is AppendOutcome.OK
        await second.write(", so good")
        await second.finish()
        held = await _held(scribe)
        # The question is told again: who has lost the log has lost it as well.
        assert [entry.type for entry in held] == ["message", "start", "chunk", "message"]
        assert [entry.position.seq for entry in held] == [0, 1, 2, 3]
        client = tell(ContractClient(), held)
        assert client.text(answer) == "so far, so good"
        assert client.messages["q-1"]["content"] == "Why?"

    async def test_an_answer_can_end_without_a_log(
        self, scribe: Scribe, under_test: LogUnderTest, loss: str
    ) -> None:
        """Everything was written and stored when the log went; its end begins the next one."""
        writing = await _begin(scribe, await scribe.ask())
        await writing.write("all of it")
        await _lose(under_test, loss)
        outcome = await writing.finish()
        if loss == "everything":
            assert outcome is AppendOutcome.LOST
            assert await _held(scribe) == []
            return
        assert outcome is AppendOutcome.OK
        (entry,) = await _held(scribe)
        assert entry.position.seq == 0
        client = tell(ContractClient(), [entry])
        assert client.text(writing.answer) == "all of it"
        assert await scribe.log.snapshot(_SESSION) == Snapshot(entry.position, None)

    async def test_the_next_turn_is_like_any_other(
        self, scribe: Scribe, under_test: LogUnderTest, loss: str
    ) -> None:
        writing = await _begin(scribe, await scribe.ask())
        await writing.write("one")
        await _lose(under_test, loss)
        await under_test.end_lease(_SESSION)
        # Stored as failed meanwhile, say; the log was never told.
        scribe.messages.clear()
        after = await _begin(scribe, await scribe.ask(), "worker-2")
        await after.write("two")
        await after.finish()
        held = await _held(scribe)
        assert [entry.position.seq for entry in held] == [0, 1, 2, 3]
        assert tell(ContractClient(), held).text(after.answer) == "two"


async def test_with_the_log_alone_gone_the_text_so_far_is_still_there(
    scribe: Scribe, under_test: LogUnderTest
) -> None:
    writing = await _begin(scribe, await scribe.ask())
    await writing.write("so far")
    await under_test.lose_log(_SESSION)
    active = ActiveAnswer(writing.answer, 1, 1, "so far")
    assert await scribe.log.snapshot(_SESSION) == Snapshot(BEFORE_ALL, active)
    claimed = await scribe.log.claim(_SESSION, writing.answer, "worker-1", LEASE_MS)
    assert isinstance(claimed, Claimed)
    assert claimed.active == active
    second = await scribe.start(claimed, writing.answer)
    assert second.text == "so far"
    assert [entry.type for entry in await _held(scribe)] == ["message", "start"]


async def test_a_stop_is_lost_with_everything(scribe: Scribe, under_test: LogUnderTest) -> None:
    """Which is why the database has it first."""
    writing = await _begin(scribe, await scribe.ask())
    await scribe.log.cancel(_SESSION, writing.answer, 2)
    await under_test.lose()
    second = await _begin(scribe, writing.answer)
    assert await second.write("text") is AppendOutcome.OK


async def test_a_stop_is_not_lost_with_the_log(scribe: Scribe, under_test: LogUnderTest) -> None:
    writing = await _begin(scribe, await scribe.ask())
    # The next attempt was begun in the database when the stop was committed there.
    await scribe.log.cancel(_SESSION, writing.answer, 2)
    await under_test.lose_log(_SESSION)
    second = await _begin(scribe, writing.answer)
    assert await second.write("text") is AppendOutcome.CANCELLED


class TestRestart:
    """AOF ``everysec``: a restarted server may have lost its last second, with its positions.

    A client that has seen those must not take the new entries under them for the old.
    """

    async def test_a_further_attempt_begins_a_new_epoch(
        self, scribe: Scribe, under_test: LogUnderTest
    ) -> None:
        writing = await _begin(scribe, await scribe.ask())
        await writing.write("so far")
        seen = await _tail(scribe)
        await under_test.restart(_SESSION)
        await under_test.end_lease(_SESSION)
        second = await _begin(scribe, writing.answer, "worker-2")
        assert second.text == "so far"
        begun = await _tail(scribe)
        assert begun.epoch > seen.epoch
        assert begun.seq == 0
        assert await _judged(scribe, seen) is HistoryReason.EPOCH
        assert await _judged(scribe, seen.plus(1)) is HistoryReason.EPOCH
        assert await _judged(scribe, BEFORE_ALL) is not None
        assert await _judged(scribe, begun) is None
        await second.write(" and on")
        assert (await _tail(scribe)) == begun.plus(1)
        assert await second.finish() is AppendOutcome.OK
        assert (await _tail(scribe)) == begun.plus(2)

    async def test_the_log_holds_one_epoch(self, scribe: Scribe, under_test: LogUnderTest) -> None:
        """What came before serves nobody, and would be in the way of who reads from the oldest."""
        writing = await _begin(scribe, await scribe.ask())
        await writing.write(*"abcdefgh")
        await under_test.restart(_SESSION)
        await under_test.end_lease(_SESSION)
        await _begin(scribe, writing.answer, "worker-2")
        held = await scribe.log.read(_SESSION, BEFORE_ALL, 2)
        assert [entry.type for entry in held.entries] == ["start"]
        assert held.first == held.last == held.entries[0].position

    async def test_the_next_turn_goes_on_in_its_epoch(
        self, scribe: Scribe, under_test: LogUnderTest
    ) -> None:
        writing = await _begin(scribe, await scribe.ask())
        await under_test.restart(_SESSION)
        await under_test.end_lease(_SESSION)
        second = await _begin(scribe, writing.answer, "worker-2")
        third = await _begin(scribe, writing.answer, "worker-2")
        assert (await _tail(scribe)).seq == 1, "one new epoch for one restart"
        await third.write("text")
        await third.finish()
        epoch = (await _tail(scribe)).epoch
        after = await _begin(scribe, await scribe.ask())
        assert (await _tail(scribe)).epoch == epoch
        assert second.text == ""
        await after.write("next")
        assert known((await scribe.log.snapshot(_SESSION)).active).text == "next"

    async def test_an_answer_that_its_worker_goes_on_with_stays_in_its_epoch(
        self, scribe: Scribe, under_test: LogUnderTest
    ) -> None:
        """Nothing was lost that it knows of: its next flush follows on the last."""
        writing = await _begin(scribe, await scribe.ask())
        await writing.write("one ")
        seen = await _tail(scribe)
        await under_test.restart(_SESSION)
        assert await writing.write("two") is AppendOutcome.OK
        assert await _tail(scribe) == seen.plus(1)
