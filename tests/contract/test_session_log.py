"""What the session log promises: positions, reading, publications, and text byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.events import Chunk, Entry, SessionChanged, new_entry, tells_deletion
from app.domain.position import BEFORE_ALL, Position
from app.streams.publication import parse_publication
from app.streams.session_log import ActiveAnswer, AppendOutcome, LogRange, Snapshot
from tests.support.contract_client import ContractClient
from tests.support.scribe import Scribe, Writing, known, tell
from tests.support.session_logs import LogUnderTest, NewLog

_SESSION = "s-1"

TEXTS = [
    pytest.param(["plain", " text"], id="ASCII"),
    pytest.param(["\U0001f469\u200d\U0001f680", "\U00010348", "\U0001f469"], id="astral"),
    pytest.param(["e", "\u0301", "o\u0308\u0323"], id="combining"),
    pytest.param(["line\r\n", "\r", "\n", "\n\n", "\u2028\u2029\x85\x0b"], id="line ends"),
    pytest.param(['"quoted"', "back\\slash", "\x00", "\x1f\x7f"], id="what JSON escapes"),
    pytest.param(["\ufeff", "\u200b\u200e", "\ufffd", "\uffff"], id="what nobody sees"),
    pytest.param(["chunk ", " {", "message {}\n7-0 original\n"], id="like a publication"),
    pytest.param(["", "a", ""], id="empty pieces"),
    pytest.param(["x" * 100_000], id="long"),
]


@pytest.fixture
def scribe(under_test: LogUnderTest) -> Scribe:
    return Scribe(under_test.log, _SESSION)


async def _held(scribe: Scribe) -> list[Entry]:
    return (await scribe.log.read(scribe.session_id, BEFORE_ALL, 10_000)).entries


async def _tail(scribe: Scribe) -> Position:
    (position,) = await scribe.log.tails([scribe.session_id])
    return position


async def _writing(scribe: Scribe) -> Writing:
    writing = await scribe.begin(await scribe.ask())
    assert writing is not None
    return writing


class TestPositions:
    async def test_a_session_that_nothing_was_said_in_stands_before_all(
        self, scribe: Scribe
    ) -> None:
        assert await _tail(scribe) == BEFORE_ALL
        assert await scribe.log.snapshot(_SESSION) == Snapshot(BEFORE_ALL, None)
        for after in (BEFORE_ALL, Position(5, 3)):
            found = await scribe.log.read(_SESSION, after, 10)
            assert found == LogRange([], None, BEFORE_ALL, original=False)

    async def test_they_count_up_by_one_whoever_writes(self, scribe: Scribe) -> None:
        for _ in range(2):
            writing = await _writing(scribe)
            await writing.write("one", "two", "three")
            await scribe.rename("Title")
            await writing.write("four")
            await writing.finish()
        tail = await _tail(scribe)
        held = await _held(scribe)
        epochs = {entry.position.epoch for entry in held}
        assert len(epochs) == 1
        assert [entry.position.seq for entry in held] == list(
            range(held[0].position.seq, held[-1].position.seq + 1)
        )
        assert tail == held[-1].position
        # Two questions, two starts, eight chunks, two titles, two final states.
        assert tail.seq == 2 + 2 + 8 + 2 + 2 - 1

    async def test_submit_and_record_give_the_position_after_them(self, scribe: Scribe) -> None:
        entry = new_entry(SessionChanged(_SESSION, "Title"))
        question = new_entry(Chunk("q", 0, 0, 0, "stands for a question"))
        at = await scribe.log.record(_SESSION, [entry, entry], pristine=True)
        assert (at.seq, at) == (1, await _tail(scribe))
        at, _ = await scribe.log.submit(_SESSION, "a", 0, [question], pristine=False)
        assert (at.seq, at) == (2, await _tail(scribe))
        at, _ = await scribe.log.submit(_SESSION, "a", 1, [], pristine=False)
        assert (at.seq, at) == (2, await _tail(scribe))

    async def test_nothing_to_append_begins_no_log(self, scribe: Scribe) -> None:
        submitted = await scribe.log.submit(_SESSION, "a", 1, [], pristine=False)
        assert submitted == (BEFORE_ALL, None)
        assert await _tail(scribe) == BEFORE_ALL

    async def test_sessions_know_nothing_of_each_other(self, scribe: Scribe) -> None:
        other = Scribe(scribe.log, "s-2")
        writing, writing_there = await _writing(scribe), await _writing(other)
        assert await writing.write("here") is AppendOutcome.OK
        assert await writing_there.write("there", "too") is AppendOutcome.OK
        tails = await scribe.log.tails(["s-2", "s-3", _SESSION])
        assert [tail.seq for tail in tails] == [3, 0, 2]
        assert tails[1] == BEFORE_ALL
        assert await scribe.log.tails([]) == []


class TestReading:
    async def test_everything_after_a_position_up_to_the_limit(self, scribe: Scribe) -> None:
        writing = await _writing(scribe)
        await writing.write(*"abcdefgh")
        whole = await scribe.log.read(_SESSION, BEFORE_ALL, 100)
        first, last = whole.entries[0].position, whole.entries[-1].position
        assert (whole.first, whole.last, whole.original) == (first, last, True)
        assert len(whole.entries) == 10
        for seq in range(-1, 10):
            after = first.plus(seq) if seq >= 0 else BEFORE_ALL
            found = await scribe.log.read(_SESSION, after, 3)
            assert found.entries == whole.entries[seq + 1 : seq + 4]
            assert found[1:] == whole[1:]

    async def test_after_the_end_there_is_nothing(self, scribe: Scribe) -> None:
        await _writing(scribe)
        tail = await _tail(scribe)
        for after in (tail, tail.plus(1), tail.plus(10**15)):
            assert (await scribe.log.read(_SESSION, after, 10)).entries == []

    async def test_after_a_position_of_another_epoch_reading_starts_at_the_oldest(
        self, scribe: Scribe
    ) -> None:
        await _writing(scribe)
        held = await _held(scribe)
        epoch = held[0].position.epoch
        for after in (Position(epoch - 1, 99), Position(epoch + 1, 0), Position(0, 1)):
            assert (await scribe.log.read(_SESSION, after, 10)).entries == held

    @pytest.mark.parametrize("pristine", [True, False])
    async def test_the_first_entry_of_all_is_told_from_the_first_that_is_held(
        self, scribe: Scribe, *, pristine: bool
    ) -> None:
        scribe.log_begun = not pristine
        writing = await _writing(scribe)
        assert (await scribe.log.read(_SESSION, BEFORE_ALL, 10)).original is pristine
        await writing.finish()
        assert (await scribe.log.read(_SESSION, BEFORE_ALL, 10)).original is pristine
        await (await _writing(scribe)).finish()
        assert (await scribe.log.read(_SESSION, BEFORE_ALL, 10)).original is False

    async def test_a_log_that_is_there_is_not_begun_by_who_thinks_so(
        self, scribe: Scribe, under_test: LogUnderTest
    ) -> None:
        """A worker was faster than ``submit``: the log has no original first entry, ever."""
        scribe.log_begun = True
        await scribe.rename("Title")
        scribe.log_begun = False
        writing = await _writing(scribe)
        payloads = await under_test.published(_SESSION)
        assert [parse_publication(payload).original for payload in payloads] == [False] * 3
        assert (await scribe.log.read(_SESSION, BEFORE_ALL, 10)).original is False
        await writing.finish()
        held = await scribe.log.read(_SESSION, BEFORE_ALL, 10)
        assert (held.entries[0].position.seq, held.original) == (1, False)

    async def test_position_and_text_so_far_are_read_together(self, scribe: Scribe) -> None:
        answer = await scribe.ask()
        at = await _tail(scribe)
        assert await scribe.log.snapshot(_SESSION) == Snapshot(at, ActiveAnswer(answer, 0, 0, ""))
        writing = await scribe.begin(answer)
        assert writing is not None
        assert known((await scribe.log.snapshot(_SESSION)).active).attempt == 1
        await writing.write("so ", "far")
        active = ActiveAnswer(answer, 1, 2, "so far")
        assert await scribe.log.snapshot(_SESSION) == Snapshot(await _tail(scribe), active)
        await writing.finish()
        assert await scribe.log.snapshot(_SESSION) == Snapshot(await _tail(scribe), None)


class TestPublications:
    async def test_they_are_the_log_entry_for_entry(
        self, scribe: Scribe, under_test: LogUnderTest
    ) -> None:
        answer = await scribe.ask("First?\n")
        writing = await scribe.begin(answer)
        assert writing is not None
        await writing.write("one ", "two\r\n", "\U0001f469")
        await scribe.rename("Title")
        await writing.write("three")
        await writing.finish()
        held = await _held(scribe)
        payloads = await under_test.published(_SESSION)
        publications = [parse_publication(payload) for payload in payloads]
        assert [entry for told in publications for entry in told.entries] == held
        # One for each transition that appends, and not one for each entry.
        assert [len(told.entries) for told in publications] == [1, 1, 3, 1, 1, 1]
        assert [told.original for told in publications] == [True, *[False] * 5]
        at = held[0].position
        assert payloads[0].startswith(b'%d-0 original\nmessage {"message_id":"q-1"' % at.epoch)
        assert payloads[2].startswith(b'%d-2\nchunk {"message_id":"a-1"' % at.epoch)

    async def test_what_appends_nothing_publishes_nothing(
        self, scribe: Scribe, under_test: LogUnderTest
    ) -> None:
        writing = await _writing(scribe)
        await writing.write("once")
        await under_test.published(_SESSION)
        await writing.write_again()
        await scribe.log.renew([(writing.lease, writing.answer, 1)], 1000)
        await scribe.log.submit(_SESSION, writing.answer, 0, [], pristine=False)
        await scribe.log.cancel(_SESSION, writing.answer, 1)
        assert await writing.write("no more") is AppendOutcome.CANCELLED
        await scribe.log.release(writing.lease)
        assert await writing.write("no more") is AppendOutcome.LOST
        assert await under_test.published(_SESSION) == []

    async def test_a_deletion_is_the_last_that_is_heard(
        self, scribe: Scribe, under_test: LogUnderTest
    ) -> None:
        writing = await _writing(scribe)
        await writing.write("text")
        tail = await _tail(scribe)
        await under_test.published(_SESSION)
        await scribe.delete()
        (payload,) = await under_test.published(_SESSION)
        (entry,) = parse_publication(payload).entries
        assert tells_deletion(entry)
        assert entry.position == tail.plus(1)
        assert await scribe.log.snapshot(_SESSION) == Snapshot(BEFORE_ALL, None)
        assert await writing.write("more") is AppendOutcome.LOST

    async def test_a_deletion_is_heard_where_nothing_was_said(
        self, scribe: Scribe, under_test: LogUnderTest
    ) -> None:
        await scribe.delete()
        (payload,) = await under_test.published(_SESSION)
        assert tells_deletion(parse_publication(payload).entries[-1])
        assert await _tail(scribe) == BEFORE_ALL


class TestText:
    @pytest.mark.parametrize("pieces", TEXTS)
    async def test_it_is_kept_byte_for_byte(
        self, scribe: Scribe, under_test: LogUnderTest, pieces: list[str]
    ) -> None:
        text = "".join(pieces)
        writing = await _writing(scribe)
        assert await writing.write(*pieces) is AppendOutcome.OK
        assert known((await scribe.log.snapshot(_SESSION)).active).text == text
        await writing.finish()
        client = ContractClient()
        client.position = str(BEFORE_ALL)
        for payload in await under_test.published(_SESSION):
            tell(client, parse_publication(payload).entries)
        assert client.text(writing.answer).encode() == text.encode()
        held = await _held(scribe)
        assert json.loads(held[-1].data)["content"].encode() == text.encode()
        chunks = [json.loads(entry.data)["chunk"] for entry in held if entry.type == "chunk"]
        assert chunks == pieces

    @pytest.mark.parametrize("pieces", TEXTS)
    async def test_what_an_attempt_keeps_is_kept_byte_for_byte(
        self, scribe: Scribe, under_test: LogUnderTest, pieces: list[str]
    ) -> None:
        text = "".join(pieces)
        writing = await _writing(scribe)
        await writing.write(*pieces)
        await under_test.end_lease(_SESSION)
        further = await scribe.begin(writing.answer, "worker-2")
        assert further is not None
        assert further.text == text
        await further.write("!")
        assert known((await scribe.log.snapshot(_SESSION)).active).text == text + "!"
        client = tell(ContractClient(), await _held(scribe))
        assert client.text(writing.answer) == text + "!"

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        flushes=st.lists(
            st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4),
            max_size=6,
        )
    )
    async def test_any_text_in_any_flushes(self, new_log: NewLog, flushes: list[list[str]]) -> None:
        async with new_log() as under_test:
            await under_test.lose()
            scribe = Scribe(under_test.log, _SESSION)
            writing = await _writing(scribe)
            for pieces in flushes:
                assert await writing.write(*pieces) is AppendOutcome.OK
            text = "".join(piece for pieces in flushes for piece in pieces)
            assert known((await scribe.log.snapshot(_SESSION)).active).text == text
            client = tell(ContractClient(), await _held(scribe))
            assert client.text(writing.answer) == text


class TestTrimming:
    async def test_the_end_of_an_answer_lets_the_turns_before_go_and_keeps_its_own(
        self, scribe: Scribe
    ) -> None:
        first = await _writing(scribe)
        await first.write("one", "two")
        await first.finish()
        before = await _held(scribe)
        assert len(before) == 5
        second = await _writing(scribe)
        await second.write("three")
        # While it runs, nothing of the turn before is missing.
        assert (await _held(scribe))[:5] == before
        await second.finish()
        held = await scribe.log.read(_SESSION, BEFORE_ALL, 100)
        assert [entry.type for entry in held.entries] == ["message", "start", "chunk", "message"]
        assert held.first == before[-1].position.plus(1)
        assert json.loads(held.entries[0].data)["message_id"] == "q-2"

    async def test_an_answer_that_is_asked_for_again_keeps_what_it_replaces_no_more(
        self, scribe: Scribe
    ) -> None:
        first = await _writing(scribe)
        await first.write("one", "two")
        await first.finish()
        last = await _tail(scribe)
        await scribe.ask_again(first.answer)
        again = await scribe.begin(first.answer)
        assert again is not None
        assert again.text == ""
        await again.write("other")
        await again.finish()
        held = await _held(scribe)
        assert held[0].position == last
        assert [entry.type for entry in held] == ["message", "start", "chunk", "message"]

    async def test_all_attempts_of_a_turn_stay(
        self, scribe: Scribe, under_test: LogUnderTest
    ) -> None:
        writing = await _writing(scribe)
        await writing.write("one")
        await under_test.end_lease(_SESSION)
        again = await scribe.begin(writing.answer, "worker-2", keep=False)
        assert again is not None
        await again.write("other")
        await again.finish()
        kinds = [entry.type for entry in await _held(scribe)]
        assert kinds == ["message", "start", "chunk", "start", "chunk", "message"]

    async def test_a_running_answer_is_bounded(self, new_log: NewLog) -> None:
        async with new_log(max_entries=200) as under_test:
            scribe = Scribe(under_test.log, _SESSION)
            writing = await _writing(scribe)
            for number in range(0, 1000, 50):
                await writing.write(*(f"{number + n} " for n in range(50)))
                (entries, *_) = await scribe.log.read(_SESSION, BEFORE_ALL, 10_000)
                assert min(number + 50, 200) <= len(entries) <= 200 + 100
            held = await scribe.log.read(_SESSION, BEFORE_ALL, 10_000)
            # What was let go is missing at the front only, and the text so far is all there.
            assert held.original is False
            assert held.last.seq == 1001
            assert [entry.position.seq for entry in held.entries] == list(
                range(1002 - len(held.entries), 1002)
            )
            text = known((await scribe.log.snapshot(_SESSION)).active).text
            assert text == "".join(f"{number} " for number in range(1000))
