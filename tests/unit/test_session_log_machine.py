"""Whatever happens, in whatever order: what a reader shows is never wrong, and at last it is all.

Hypothesis writes conversations into a log in memory and loses, repeats, trims and restarts what it
likes, while two readers on two nodes follow through the product's own tails and followers. Each of
them refuses whatever the contract does not allow.

The runs are the same each time. To look for longer, and elsewhere:

    MACHINE_EXAMPLES=5000 pytest --timeout 0 tests/unit/test_session_log_machine.py
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.domain.events import new_entry
from app.domain.messages import Status
from app.domain.position import BEFORE_ALL, Position
from app.models.client import Reasoning
from app.streams.session_log import AppendOutcome
from app.telemetry import create_metrics
from tests.support.contract_client import ContractClient
from tests.support.room import SESSION, turns
from tests.support.scribe import LEASE_MS
from tests.support.world import World, shown_as

_EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "0"))

_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
_TEXTS = st.text(_CHARACTERS, max_size=4)
_PIECES = st.lists(_TEXTS | _TEXTS | _TEXTS.filter(bool).map(Reasoning), min_size=1, max_size=5)
_EPOCHS = (0, 1, 1000, 1001, 10**15)
_NEVER = 10_000
"""Further than any log comes: a made-up position must not come true meanwhile."""
_READERS = st.integers(0, 1)
_WORKERS = st.sampled_from(["worker-1", "worker-2"])


class SessionLogMachine(RuleBasedStateMachine, World):
    """A session, its workers, two nodes and two readers."""

    def __init__(self) -> None:
        super().__init__()
        World.__init__(self, create_metrics())

    # What is said.

    @precondition(lambda self: self.scribe.unfinished is None)
    @rule(text=st.text(_CHARACTERS, min_size=1, max_size=4), pieces=_PIECES)
    def ask(self, text: str, pieces: Sequence[str | Reasoning] = ()) -> None:
        self.run(self.scribe.ask(text))
        self.begin("worker-1", pieces)

    @precondition(lambda self: self.scribe.unfinished is None and self.scribe.messages)
    @rule()
    def ask_again(self) -> None:
        answer = list(self.scribe.messages)[-1]
        self.stops.discard(answer)
        self.run(self.scribe.ask_again(answer))

    @rule(title=st.sampled_from(["Trees", "Boats\n"]))
    def rename(self, title: str) -> None:
        self.run(self.scribe.rename(title))

    @precondition(lambda self: self.scribe.unfinished)
    @rule()
    def stop(self) -> None:
        answer = self.scribe.unfinished
        assert answer is not None
        self.stops.add(answer)
        if self.run(self.log.cancel(SESSION, answer, 1)) is None:
            claimed = self.claim(answer, "web-1")
            assert claimed is not None
            self.settle(claimed, answer)

    # What workers do.

    @precondition(lambda self: self.scribe.unfinished)
    @rule(
        worker=_WORKERS,
        pieces=_PIECES,
        keep=st.booleans(),
        paused=st.sampled_from([False, False, True]),
    )
    def begin(
        self,
        worker: str,
        pieces: Sequence[str | Reasoning] = (),
        keep: bool = True,
        paused: bool = False,
    ) -> None:
        answer = self.scribe.unfinished
        assert answer is not None
        claimed = self.claim(answer, worker)
        if claimed is None:
            return
        before = self.writing.pop(worker, None)
        if before is not None:
            self.past.append(before)
        if paused:
            return
        if answer in self.stops:
            self.settle(claimed, answer)
            return
        own = self.remembered.pop((worker, answer), None)
        attempt = self.scribe.messages[answer].attempt
        writing = self.run(
            self.scribe.start(
                claimed,
                answer,
                keep=keep,
                remembered=own.text if own is not None and own.attempt == attempt else "",
            )
        )
        assert writing.outcome is AppendOutcome.OK
        self.writing[worker] = writing
        self.texts[answer, writing.attempt] = lambda: writing.text
        if pieces:
            self.append(worker, pieces)

    @precondition(lambda self: self.writing)
    @rule(data=st.data(), pieces=_PIECES)
    def write(self, data: st.DataObject, pieces: list[str | Reasoning]) -> None:
        self.append(data.draw(st.sampled_from(sorted(self.writing))), pieces)

    @precondition(lambda self: self.writing)
    @rule(pieces=_PIECES, which=_READERS, lost=st.integers(1, 3))
    def write_and_lose(self, pieces: list[str | Reasoning], which: int, lost: int) -> None:
        """Let a node miss so many publications of one entry each, from now on."""
        self.nodes[which].to_lose = lost
        for piece in pieces:
            if self.writing:
                self.append(min(self.writing), [piece])

    @precondition(lambda self: self.writing)
    @rule(data=st.data())
    def write_the_same_again(self, data: st.DataObject) -> None:
        writing = self.writing[data.draw(st.sampled_from(sorted(self.writing)))]
        if writing.index:
            before = self.position()
            self.run(writing.write_again())
            assert self.position() == before

    @precondition(lambda self: any(one.lease is not self.lease for one in self.past))
    @rule(data=st.data(), pieces=_PIECES)
    def write_under_an_old_lease(self, data: st.DataObject, pieces: list[str | Reasoning]) -> None:
        old = [one for one in self.past if one.lease is not self.lease]
        writing = data.draw(st.sampled_from(old))
        before = self.position()
        outcome = self.run(writing.write(*pieces))
        assert outcome in {AppendOutcome.LOST, AppendOutcome.SUPERSEDED}, "a second voice"
        assert self.position() == before

    @precondition(lambda self: self.writing)
    @rule(data=st.data(), status=st.sampled_from([Status.COMPLETE, Status.FAILED]))
    def end(self, data: st.DataObject, status: Status) -> None:
        self.store(data.draw(st.sampled_from(sorted(self.writing))), status)

    @precondition(lambda self: self.untold)
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        self.tell_final(data.draw(st.sampled_from(sorted(self.untold))))

    @precondition(lambda self: self.redelivered)
    @rule(worker=_WORKERS)
    def tell_for_another(self, worker: str) -> None:
        answer = min(self.redelivered)
        stored = self.scribe.messages[answer]
        if not stored.is_complete:
            self.redelivered.discard(answer)
            return
        claimed = self.claim(answer, worker)
        if claimed is not None:
            self.redelivered.discard(answer)
            self.run(self.log.finish(claimed.lease, answer, stored.attempt, new_entry(stored)))

    @rule(pieces=_PIECES)
    def leases_run_out(self, pieces: Sequence[str | Reasoning] = ()) -> None:
        """Let all workers wake up too late, and write on as if nothing had happened."""
        self.seconds += 2 * LEASE_MS / 1000
        self.lease = None
        if pieces:
            for worker in list(self.writing):
                self.append(worker, pieces)

    @precondition(lambda self: self.untold and not self.lost)
    @rule(data=st.data())
    def die_before_telling(self, data: st.DataObject) -> None:
        # Not together with a loss of everything: the job is lost as well then, and only whoever
        # connects anew is given the final state.
        writing, _ = self.untold.pop(data.draw(st.sampled_from(sorted(self.untold))))
        self.past.append(writing)
        self.redelivered.add(writing.answer)

    # What goes wrong.

    @rule(which=_READERS, back=st.integers(1, 6))
    def repeat_a_publication(self, which: int, back: int) -> None:
        node = self.nodes[which]
        if len(node.seen) >= back:
            payload = node.seen[-back]
            self.loop.call_soon(node.node.wire.deliver, SESSION, payload)

    @precondition(lambda self: self.may_be_lost())
    @rule(everything=st.booleans())
    def lose_the_log(self, everything: bool) -> None:
        self.lost = True
        if everything and not self.redelivered:
            self.lease = None
            self.log.lose_everything()
        else:
            self.log.lose_log(SESSION)

    @rule()
    def restart_the_server(self) -> None:
        self.log.restart()

    @rule(count=st.integers(1, 40))
    def lose_sight_of_the_log(self, count: int) -> None:
        self.distant.away = True
        self.run(turns(count))
        self.distant.away = False

    @rule(which=_READERS)
    def lose_a_node(self, which: int) -> None:
        self.run(self.readers[which].disconnect())
        self.run(self.nodes[which].node.tails.close())
        self.nodes[which] = self.new_node()

    # What readers do.

    @rule(which=_READERS)
    def disconnect(self, which: int) -> None:
        self.run(self.readers[which].disconnect())

    @rule(which=_READERS)
    def reconnect(self, which: int) -> None:
        self.connect(which)

    @rule(
        which=_READERS,
        position=st.sampled_from([None, BEFORE_ALL, *(Position(one, _NEVER) for one in _EPOCHS)]),
    )
    def reload(self, which: int, position: Position | None) -> None:
        """Come with nothing, and with a position, a true one or not, or without."""
        client = ContractClient()
        client.position = None if position is None else str(position)
        made_up = position is not None and position.seq == _NEVER
        self.connect(which, client, needs_history=made_up)

    @rule(which=_READERS, data=st.data())
    def wake_up(self, which: int, data: st.DataObject) -> None:
        """Come with the state of any earlier moment, as a tab does that was put to sleep."""
        earlier = self.readers[which].earlier
        if earlier:
            back = data.draw(st.integers(1, len(earlier)))
            self.connect(which, copy.deepcopy(earlier[-back]))

    # What passes.

    @initialize(turns=st.sampled_from([0, 2, 40]))
    def begin_at_a_pace(self, turns: int) -> None:
        self.turns = turns
        for which in range(2):
            self.connect(which)
        self.ask("?")

    @rule(count=st.integers(1, 60))
    def let_pass(self, count: int) -> None:
        self.run(turns(count))

    @rule(which=_READERS, confirmed=st.booleans())
    def look_at_the_log(self, which: int, confirmed: bool) -> None:
        """Let a node be told that it is subscribed, or compare by itself."""
        node = self.nodes[which].node
        if confirmed:
            self.loop.call_soon(node.wire.confirm, SESSION)
        else:
            self.run(node.tails.check())

    @invariant()
    def nobody_shows_what_was_never_said(self) -> None:
        self.run(turns(self.turns))
        assert not self.crashes
        for reader in self.readers:
            reader.look()
            reader.remember()
            for message in reader.client.messages.values():
                self.was_said(message)

    @rule()
    def come_to_rest(self) -> None:
        """Answer what is to be answered, let everything arrive: both show what is stored."""
        while self.scribe.unfinished is not None or self.untold or self.redelivered:
            self.leases_run_out()
            if self.untold:
                self.tell_final(min(self.untold))
            elif self.redelivered:
                self.tell_for_another("worker-1")
            else:
                self.begin("worker-1")
                if "worker-1" in self.writing:
                    self.store("worker-1", Status.COMPLETE)
        for which, reader in enumerate(self.readers):
            if not reader.connected:
                self.connect(which)
        stored = {one.message_id: shown_as(one) for one in self.scribe.messages.values()}
        for _ in range(4):
            self.run(turns(100))
            for node in self.nodes:
                node.to_lose = 0
                self.run(node.node.tails.check())
            self.run(turns(300))
        for reader in self.readers:
            reader.look()
            shown = reader.client
            assert shown.messages == stored, (
                f"at {shown.position} of {self.position()}: {shown.messages} for {stored}"
            )

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            self.close()


# It takes seconds; time is for a failure, of which Hypothesis looks for a short example.
TestSessionLog = pytest.mark.timeout(400)(SessionLogMachine.TestCase)
TestSessionLog.settings = settings(
    max_examples=_EXAMPLES or 150,
    stateful_step_count=40,
    derandomize=not _EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
