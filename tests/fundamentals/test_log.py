"""The session log: a tour of the one thing that everything else reads.

Read from top to bottom. Every test tells one idea; ``Scribe`` asks and answers as the product
does, ``ContractClient`` follows the rule of the contract to the letter.
"""

from __future__ import annotations

import itertools
import json

import pytest

from app.domain.errors import InvalidPosition
from app.domain.messages import Status
from app.domain.position import BEFORE_ALL, Position
from app.streams.memory_log import MemorySessionLog
from app.streams.session_log import AppendOutcome
from tests.support.contract_client import ContractBreachError, ContractClient
from tests.support.scribe import LEASE_MS, Scribe, known, tell


class _Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def log(clock: _Clock) -> MemorySessionLog:
    epochs = itertools.count(1000)
    return MemorySessionLog(max_entries=1000, clock=clock, epoch_clock=lambda: next(epochs))


@pytest.fixture
def scribe(log: MemorySessionLog) -> Scribe:
    return Scribe(log)


async def _everything(scribe: Scribe) -> ContractClient:
    """A client that reads the session from its very beginning."""
    client = ContractClient()
    client.position = str(BEFORE_ALL)
    held = await scribe.log.read(scribe.session_id, BEFORE_ALL, 1000)
    return tell(client, held.entries)


def test_a_position_is_a_place_in_a_log() -> None:
    """``<epoch>-<seq>``: which life of the log, and how far into it. It means «seen up to here»."""
    position = Position.parse("1769850300123-41")
    assert position.plus(1) == Position.parse("1769850300123-42")
    with pytest.raises(InvalidPosition):
        Position.parse("yesterday")


async def test_a_session_stands_before_all_until_something_is_said(scribe: Scribe) -> None:
    """The first entry begins the log: its epoch is the time, its sequence number 0."""
    assert await scribe.log.tails([scribe.session_id]) == [BEFORE_ALL]
    await scribe.ask()
    assert await scribe.log.tails([scribe.session_id]) == [Position(1000, 0)]


async def test_an_answer_is_a_start_chunks_and_a_message(scribe: Scribe) -> None:
    """Chunks say where they belong, in code points; the final message says everything."""
    writing = await scribe.begin(await scribe.ask("Sing"))
    assert writing is not None
    await writing.write("la 🎵", " la")
    await writing.finish()
    held = await scribe.log.read(scribe.session_id, BEFORE_ALL, 1000)
    assert [entry.type for entry in held.entries] == [
        "message", "start", "chunk", "chunk", "message",
    ]  # fmt: skip
    chunks = [json.loads(entry.data) for entry in held.entries[2:4]]
    assert [(chunk["offset"], chunk["chunk"]) for chunk in chunks] == [(0, "la 🎵"), (4, " la")]
    assert json.loads(held.entries[4].data)["content"] == "la 🎵 la"


async def test_positions_grow_by_one(scribe: Scribe) -> None:
    """So a client can prove that it missed nothing."""
    writing = await scribe.begin(await scribe.ask())
    assert writing is not None
    await writing.write(*"abcdef")
    held = await scribe.log.read(scribe.session_id, BEFORE_ALL, 1000)
    assert [entry.position.seq for entry in held.entries] == list(range(8))


async def test_replay_and_live_make_the_stored_message_from_anywhere(scribe: Scribe) -> None:
    """Cut at any point, resumed from the position reached: the same text, byte for byte."""
    answer = await scribe.ask()
    writing = await scribe.begin(answer)
    assert writing is not None
    await writing.write("naïve ", "👩\u200d🚀", "\r\n\u2028", "end")
    await writing.finish()
    entries = (await scribe.log.read(scribe.session_id, BEFORE_ALL, 1000)).entries
    for cut in range(len(entries)):
        client = ContractClient()
        client.position = str(BEFORE_ALL)
        tell(client, entries[:cut])
        resumed = await scribe.log.read(scribe.session_id, Position.parse(client.position), 1000)
        tell(client, resumed.entries)
        assert client.text(answer) == scribe.messages[answer].content


async def test_a_repeat_is_harmless(scribe: Scribe) -> None:
    """A chunk below the length that a client has is one that it has."""
    answer = await scribe.ask()
    writing = await scribe.begin(answer)
    assert writing is not None
    await writing.write("one ", "two ", "three")
    client = await _everything(scribe)
    client.position = None
    held = await scribe.log.read(scribe.session_id, Position(1000, 2), 1000)
    tell(client, held.entries)
    assert client.text(answer) == "one two three"


async def test_a_hole_is_seen(scribe: Scribe) -> None:
    """What is missing shows in the position, and where that is not known, in the offset."""
    writing = await scribe.begin(await scribe.ask())
    assert writing is not None
    await writing.write("one ", "two ", "three")
    entries = (await scribe.log.read(scribe.session_id, BEFORE_ALL, 1000)).entries
    client = tell(ContractClient(), entries[:3])
    with pytest.raises(ContractBreachError, match="1000-4 came after 1000-2"):
        tell(client, entries[4:])
    client.position = None
    with pytest.raises(ContractBreachError, match="a hole: 8 after 4 characters"):
        tell(client, entries[4:])


async def test_a_flush_that_is_sent_twice_is_written_once(scribe: Scribe) -> None:
    """A worker whose reply was lost sends the very same flush again."""
    answer = await scribe.ask()
    writing = await scribe.begin(answer)
    assert writing is not None
    await writing.write("once")
    assert await writing.write_again() is AppendOutcome.OK
    assert (await _everything(scribe)).text(answer) == "once"


async def test_two_voices_are_impossible(scribe: Scribe, clock: _Clock) -> None:
    """A worker that was paused past its lease wakes up to find that it cannot write a letter."""
    answer = await scribe.ask()
    first = await scribe.begin(answer, "worker-1")
    assert first is not None
    await first.write("It was a ")
    assert await scribe.begin(answer, "worker-2") is None
    clock.seconds += LEASE_MS / 1000
    second = await scribe.begin(answer, "worker-2")
    assert second is not None
    assert second.lease.token > first.lease.token
    assert await first.write("DARK night") is AppendOutcome.SUPERSEDED
    assert await first.finish() is None
    await second.write("bright day")
    await second.finish()
    assert (await _everything(scribe)).text(answer) == "It was a bright day"


async def test_an_attempt_that_cannot_go_on_says_so(scribe: Scribe, clock: _Clock) -> None:
    """``start`` names what is kept of the text before; clients make their text that."""
    answer = await scribe.ask()
    first = await scribe.begin(answer)
    assert first is not None
    await first.write("Once upon a")
    clock.seconds += LEASE_MS / 1000
    second = await scribe.begin(answer, "worker-2", keep=False)
    assert second is not None
    await second.write("There was")
    client = await _everything(scribe)
    assert client.text(answer) == "There was"
    assert [start["attempt"] for start in client.starts] == [1, 2]


async def test_a_stop_outlives_the_worker(scribe: Scribe, clock: _Clock) -> None:
    """A stop is kept by the log, not by whoever writes: the next worker finds it as well."""
    answer = await scribe.ask()
    first = await scribe.begin(answer)
    assert first is not None
    await first.write("So far")
    # Meant for the attempt that the database has begun meanwhile; it begins none after a stop.
    assert await scribe.log.cancel(scribe.session_id, answer, 2) == "worker-1"
    clock.seconds += LEASE_MS / 1000
    second = await scribe.begin(answer, "worker-2")
    assert second is not None
    assert await second.write(", so good") is AppendOutcome.CANCELLED
    await second.finish(Status.CANCELLED)
    client = await _everything(scribe)
    assert client.text(answer) == "So far"
    assert client.messages[answer]["status"] == "cancelled"


async def test_disconnect_is_not_stop(scribe: Scribe) -> None:
    """Nobody reads, and the answer is written all the same; whoever comes back finds it."""
    answer = await scribe.ask()
    client = await _everything(scribe)
    writing = await scribe.begin(answer)
    assert writing is not None
    await writing.write("Nobody ", "listened.")
    await writing.finish()
    assert client.position is not None
    left_at = Position.parse(client.position)
    tell(client, (await scribe.log.read(scribe.session_id, left_at, 1000)).entries)
    assert client.is_complete(answer)
    assert client.text(answer) == "Nobody listened."


async def test_a_lost_log_begins_a_new_epoch(scribe: Scribe, log: MemorySessionLog) -> None:
    """A position of an earlier life is never mistaken for one of this."""
    await scribe.ask()
    log.lose_everything()
    assert await scribe.log.tails([scribe.session_id]) == [BEFORE_ALL]
    await scribe.ask()
    held = await scribe.log.read(scribe.session_id, Position(1000, 0), 1000)
    assert held.last == Position(1001, 0)
    assert not held.original


async def test_the_text_so_far_is_read_with_its_position(scribe: Scribe) -> None:
    """A reload shows it at once, and goes on from exactly there."""
    answer = await scribe.ask()
    writing = await scribe.begin(answer)
    assert writing is not None
    await writing.write("so ", "far")
    snapshot = await scribe.log.snapshot(scribe.session_id)
    assert known(snapshot.active).text == "so far"
    await writing.write(" and on")
    after = (await scribe.log.read(scribe.session_id, snapshot.position, 1000)).entries
    assert [json.loads(entry.data)["offset"] for entry in after] == [len("so far")]


async def test_the_turns_before_the_last_are_let_go(scribe: Scribe) -> None:
    """Their text is in the database; the log keeps what somebody may be in the middle of."""
    for number in range(3):
        writing = await scribe.begin(await scribe.ask(f"Question {number}"))
        assert writing is not None
        await writing.write("answer")
        await writing.finish()
    held = await scribe.log.read(scribe.session_id, BEFORE_ALL, 1000)
    assert json.loads(held.entries[0].data)["content"] == "Question 2"
    assert [entry.type for entry in held.entries] == ["message", "start", "chunk", "message"]
