"""Two workers, a web node and a reader, and everything that may happen to them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.support.gates import Leave
from tests.support.lease_stage import SESSION
from tests.support.lease_steps import THE_END, LeaseSteps

_LEAVES = st.sampled_from(
    [Leave.GO, Leave.GO, Leave.GO, Leave.HOLD_REPLY, Leave.FAIL, Leave.LATE, Leave.TWICE]
)
_STEPS = st.sampled_from(
    [
        ("log claim", 1),
        ("database write", 1),
        ("log start", 1),
        ("log append", 1),
        ("log append", 3),
        (THE_END, 1),
        (THE_END, 1),
        ("log finish", 1),
    ]
)
"""The steps of an attempt, in their order."""


class LeaseMachine(RuleBasedStateMachine, LeaseSteps):
    """The steps in any order, and all that may go wrong between them."""

    def __init__(self) -> None:
        super().__init__()
        LeaseSteps.__init__(self)

    @initialize(continues=st.booleans(), counts=st.tuples(st.integers(0, 14), st.integers(0, 3)))
    def begin(self, continues: bool, counts: tuple[int, int]) -> None:
        self.set(continues=continues)
        self.stage.ask()
        self.step_all(self.stage.web)
        for worker, count in zip(self.stage.workers, counts, strict=True):
            worker.take(self.latest())
            self.run(self.gates.settle())
            self.let_go_on(worker.process, count)

    # What is asked.

    @precondition(lambda self: not self.stage.web.busy)
    @rule()
    def ask(self) -> None:
        self.stage.ask()
        self.run(self.gates.settle())

    @precondition(lambda self: not self.stage.web.busy and self.judge.asked)
    @rule()
    def ask_again(self) -> None:
        self.stage.ask_again(self.latest())
        self.run(self.gates.settle())

    @precondition(lambda self: not self.stage.web.busy and self.unfinished())
    @rule(count=st.integers(0, 4), data=st.data(), which=_STEPS)
    def stop(self, count: int, data: st.DataObject, which: tuple[str, int]) -> None:
        """Ask for a stop, just before a worker takes a certain step."""
        if self.waiting():
            self.let_go_on_to(data.draw(st.sampled_from(self.waiting())), *which)
        answer = self.unfinished()
        if answer is None:
            return
        self.stage.stop(answer)
        self.run(self.gates.settle())
        self.let_go_on(self.stage.web, count)
        if self.waiting():
            self.let_go_on(data.draw(st.sampled_from(self.waiting())), 12)

    @precondition(lambda self: not self.stage.web.busy and self.unfinished() and self.idle())
    @rule(
        data=st.data(),
        ends=st.integers(4, 14),
        count=st.integers(0, 14),
        then=st.integers(0, 6),
    )
    def stop_late(self, data: st.DataObject, ends: int, count: int, then: int) -> None:
        """Hold a stop up on its way, until its answer has ended and was asked for again."""
        answer = self.unfinished()
        assert answer is not None
        self.stage.stop(answer)
        self.run(self.gates.settle())
        self.let_go_on_to(self.stage.web, "log cancel", 1)
        if not self.let(self.stage.web, Leave.LATE):
            return
        held_up = len(self.gates.late) - 1
        self.let_go_on(self.stage.web, ends)
        self.end_lease()
        worker = data.draw(st.sampled_from(self.idle()))
        worker.take(answer)
        self.run(self.gates.settle())
        self.let_go_on(worker.process, ends)
        if self.unfinished() is None and not self.stage.web.busy:
            self.stage.ask_again(answer)
            self.run(self.gates.settle())
            self.let_go_on(self.stage.web, ends)
            if not worker.answering:
                worker.take(answer)
                self.run(self.gates.settle())
                self.let_go_on(worker.process, count)
        if held_up < len(self.gates.late):
            self.run(self.gates.arrive_late(held_up))
        self.let_go_on(worker.process, then)

    # Who works.

    @precondition(lambda self: self.judge.asked and self.idle())
    @rule(data=st.data(), count=st.integers(0, 14))
    def give_job(self, data: st.DataObject, count: int) -> None:
        """Let a worker take a job: the queue's, one that is there twice, or the reconciler's."""
        worker = data.draw(st.sampled_from(self.idle()))
        # Mostly the latest: what came before it is final.
        worker.take(data.draw(st.sampled_from([*self.judge.asked, *[self.latest()] * 3])))
        self.run(self.gates.settle())
        self.let_go_on(worker.process, count)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), leave=_LEAVES)
    def step(self, data: st.DataObject, leave: Leave) -> None:
        self.let(data.draw(st.sampled_from(self.waiting())), leave)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), count=st.integers(2, 12))
    def steps(self, data: st.DataObject, count: int) -> None:
        self.let_go_on(data.draw(st.sampled_from(self.waiting())), count)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), which=_STEPS)
    def work_up_to(self, data: st.DataObject, which: tuple[str, int]) -> None:
        """Let a process go on until it is about to take a certain step."""
        self.let_go_on_to(data.draw(st.sampled_from(self.waiting())), *which)

    @precondition(lambda self: self.waiting())
    @rule(
        data=st.data(),
        leave=st.sampled_from([Leave.LATE, Leave.LATE, Leave.TWICE, Leave.FAIL, Leave.HOLD_REPLY]),
        which=_STEPS,
        between=st.integers(0, 3),
        after=st.integers(0, 8),
    )
    def go_on_after_a_failure(
        self, data: st.DataObject, leave: Leave, which: tuple[str, int], between: int, after: int
    ) -> None:
        """Let a call fail, and its caller try again; what was given up may arrive meanwhile."""
        process = data.draw(st.sampled_from(self.waiting()))
        self.let_go_on_to(process, *which)
        if not self.let(process, leave):
            return
        self.loop.now += 1.0
        self.run(self.gates.settle())
        self.let_go_on(process, between)
        if self.gates.late and leave in {Leave.LATE, Leave.TWICE}:
            self.run(self.gates.arrive_late(len(self.gates.late) - 1))
            self.look()
        self.let_go_on(process, after)

    @precondition(lambda self: self.idle() and len(self.waiting()) > 0 and self.unfinished())
    @rule(data=st.data(), which=_STEPS, count=st.integers(1, 14), then=st.integers(0, 6))
    def overtake(self, data: st.DataObject, which: tuple[str, int], count: int, then: int) -> None:
        """Freeze whoever works past its lease: another goes on, and the first wakes up."""
        frozen = data.draw(st.sampled_from(self.waiting()))
        self.let_go_on_to(frozen, *which)
        other = data.draw(st.sampled_from(self.idle()))
        self.end_lease()
        answer = self.unfinished()
        if answer is None:
            return
        other.take(answer)
        self.run(self.gates.settle())
        self.let_go_on(other.process, count)
        self.let_go_on(frozen, then)

    @precondition(lambda self: self.holding())
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.holding())).renew()
        self.run(self.gates.settle())

    @precondition(lambda self: self.holding())
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.holding())).hand_over()
        self.run(self.gates.settle())

    # What goes wrong.

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """Kill a process between two of its steps; another takes its place."""
        process = data.draw(st.sampled_from(self.waiting()))
        self.gates.story.append(f"{process.name} dies")
        self.run(self.stage.processes_end([process]))
        if process is self.stage.web:
            self.stage.new_web()
            return
        for which, worker in enumerate(self.stage.workers):
            if worker.process is process:
                self.stage.workers[which] = self.stage.new_worker()

    @precondition(lambda self: self.gates.late)
    @rule(data=st.data())
    def arrive_late(self, data: st.DataObject) -> None:
        self.run(self.gates.arrive_late(data.draw(st.integers(0, len(self.gates.late) - 1))))

    @rule(seconds=st.sampled_from([0.05, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.now += seconds
        self.run(self.gates.settle())

    @rule()
    def leases_run_out(self) -> None:
        self.gates.story.append("leases run out")
        self.end_lease()
        self.run(self.gates.settle())

    @rule(everything=st.booleans())
    def redis_forgets(self, everything: bool) -> None:
        self.gates.story.append("redis forgets " + ("all" if everything else "the log"))
        self.run(self.under_test.lose() if everything else self.under_test.lose_log(SESSION))
        self.stage.witness.forgot(everything=everything)

    @rule(lost=st.sampled_from([0, 0, 0, 1, 2, 5]))
    def redis_restarts(self, lost: int) -> None:
        """Let the server be another, which may have lost the end of what it was told."""
        self.gates.story.append(f"redis restarts without the last {lost}")
        if lost and self.valkey is None:
            self.stage.witness.go_back(lost)
        self.run(self.under_test.restart(SESSION))

    @rule()
    def the_sleeper_wakes(self) -> None:
        self.run(self.stage.read(self.stage.sleeper))

    # What must hold.

    @invariant()
    def what_is_stored_and_shown_is_true(self) -> None:
        self.look()

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            self.close()
