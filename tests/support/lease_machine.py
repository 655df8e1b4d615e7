"""Two workers, a web node and a reader, and everything that may happen to them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from redis.asyncio import Redis
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import messages
from app.domain.messages import Role, Status
from tests.support.conversations import told
from tests.support.gates import Gates, Leave, Process, StageLoop
from tests.support.lease_stage import (
    SESSION,
    WHOLE,
    LeaseStage,
    OnStage,
    StagedWorker,
    said_by,
    unsigned,
)
from tests.support.session_logs import LogUnderTest, valkey_under_test

_Found = TypeVar("_Found")

_LEAVES = st.sampled_from([Leave.GO, Leave.GO, Leave.GO, Leave.HOLD_REPLY, Leave.FAIL, Leave.LATE])
_STEPS = st.sampled_from(
    [
        ("log claim", 1),
        ("database write", 1),
        ("log start", 1),
        ("log append", 1),
        ("log append", 3),
        ("database write", 2),
        ("database write", 2),
        ("log finish", 1),
    ]
)
"""The steps of an attempt, in their order; the second transaction stores the final state."""

_ENDS = {"STREAM_COMPLETED", "STREAM_CANCELLED", "STREAM_FAILED"}
_ROUNDS = 12


class LeaseMachine(RuleBasedStateMachine):
    """Two workers, a web node, a reader, and everything that may happen to them."""

    template: Path
    """A migrated database, to be copied."""
    valkey: str | None = None
    """A server's URL; None for the log in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = StageLoop()
        self.gates = Gates(self.loop)
        self.directory = tempfile.TemporaryDirectory(prefix="throughline-machine-")
        self.accepted: dict[str, int] = {}
        """How often each answer was asked for, as far as the database knows."""
        self.finals: dict[tuple[str, int], tuple[str, str]] = {}
        self.attempts: dict[str, int] = {}
        self.began: dict[tuple[str, int], str] = {}
        """Who began each attempt."""

    def run(self, made: Coroutine[Any, Any, _Found]) -> _Found:
        return self.loop.run_until_complete(made)

    @asynccontextmanager
    async def _memory(self) -> Any:
        yield OnStage(self.loop)

    @initialize(continues=st.booleans(), counts=st.tuples(st.integers(0, 14), st.integers(0, 3)))
    def begin(self, continues: bool, counts: tuple[int, int]) -> None:
        path = Path(self.directory.name) / "throughline.db"
        shutil.copyfile(self.template, path)
        made: AbstractAsyncContextManager[LogUnderTest] = (
            self._memory() if self.valkey is None else valkey_under_test(self.valkey)
        )

        async def enter() -> LeaseStage:
            if self.valkey is not None:
                async with Redis.from_url(self.valkey) as redis:
                    await redis.flushall()
            self.under_test = await made.__aenter__()
            return LeaseStage(
                self.gates, self.under_test.log, f"sqlite:///{path}", continues=continues
            )

        self._made = made
        self.stage = self.run(enter())
        self.stage.ask()
        self.step_all(self.stage.web)
        for worker, count in zip(self.stage.workers, counts, strict=True):
            worker.take(list(self.accepted)[-1])
            self.run(self.gates.settle())
            self.let_go_on(worker.process, count)

    # What is asked.

    @precondition(lambda self: not self.stage.web.busy)
    @rule()
    def ask(self) -> None:
        self.stage.ask()
        self.run(self.gates.settle())

    @precondition(lambda self: not self.stage.web.busy and self.accepted)
    @rule()
    def ask_again(self) -> None:
        self.stage.ask_again(list(self.accepted)[-1])
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
        self.stage.stop(answer, self.accepted[answer])
        self.run(self.gates.settle())
        self.let_go_on(self.stage.web, count)
        if self.waiting():
            self.let_go_on(data.draw(st.sampled_from(self.waiting())), 12)

    # Who works.

    @precondition(lambda self: self.accepted and self.idle())
    @rule(data=st.data(), count=st.integers(0, 14))
    def give_job(self, data: st.DataObject, count: int) -> None:
        """Let a worker take a job: the queue's, one that is there twice, or the reconciler's."""
        worker = data.draw(st.sampled_from(self.idle()))
        # Mostly the latest: what came before it is final.
        worker.take(data.draw(st.sampled_from([*self.accepted, *[list(self.accepted)[-1]] * 3])))
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
        leave=st.sampled_from([Leave.LATE, Leave.LATE, Leave.FAIL, Leave.HOLD_REPLY]),
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
        if self.gates.late and leave is Leave.LATE:
            self.run(self.gates.arrive_late(len(self.gates.late) - 1))
            self.run(self.stage.read())
        self.let_go_on(process, after)

    @precondition(lambda self: self.idle() and len(self.waiting()) > 0 and self.unfinished())
    @rule(data=st.data(), which=_STEPS, count=st.integers(1, 14), then=st.integers(0, 6))
    def overtake(self, data: st.DataObject, which: tuple[str, int], count: int, then: int) -> None:
        """Freeze whoever works past its lease: another goes on, and the first wakes up."""
        frozen = data.draw(st.sampled_from(self.waiting()))
        self.let_go_on_to(frozen, *which)
        other = data.draw(st.sampled_from(self.idle()))
        self.run(self.under_test.end_lease(SESSION))
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
        self.run(self.under_test.end_lease(SESSION))
        self.run(self.gates.settle())

    @rule(everything=st.booleans())
    def redis_forgets(self, everything: bool) -> None:
        self.gates.story.append("redis forgets " + ("all" if everything else "the log"))
        self.run(self.under_test.lose() if everything else self.under_test.lose_log(SESSION))

    @rule()
    def redis_restarts(self) -> None:
        self.gates.story.append("redis restarts")
        self.run(self.under_test.restart(SESSION))

    # What must hold.

    @invariant()
    def what_is_stored_and_shown_is_true(self) -> None:
        if not hasattr(self, "stage"):
            return
        self.what_is_stored_is_true()
        try:
            self.run(self.stage.read())
        except AssertionError as refused:
            raise AssertionError(f"{refused}: {self.told()}") from refused
        for shown in self.stage.reader.messages.values():
            if shown.get("role", "assistant") == "assistant":
                assert WHOLE.startswith(unsigned(shown["content"])), f"{shown}: {self.told()}"
                self.has_one_voice(shown["content"])

    def has_one_voice(self, content: str) -> None:
        """Fail where a model that cannot go on from the middle is found to have done so."""
        if not self.stage.continues:
            assert len(set(said_by(content))) < 2, f"two voices, {content!r}: {self.told()}"

    def what_is_stored_is_true(self) -> None:
        assert not self.gates.crashes, f"{self.gates.crashes}: {self.told()}"
        for answer_id, asked, attempt, status, content in self.run(self._stored()):
            self.accepted[answer_id] = asked
            assert attempt >= self.attempts.get(answer_id, 0), "an attempt's number went back"
            self.attempts[answer_id] = attempt
            if not Status(status).is_final:
                continue
            assert WHOLE.startswith(unsigned(content)), f"{content!r} not said: {self.told()}"
            self.has_one_voice(content)
            if status == Status.COMPLETE:
                assert unsigned(content) == WHOLE, f"{content!r} looks whole: {self.told()}"
                if not self.stage.continues:
                    began = self.began[answer_id, attempt]
                    assert said_by(content)[0] == began, f"an old attempt's end: {self.told()}"
            stop_holds = (answer_id, asked) not in self.stage.stopped
            assert stop_holds or status != Status.COMPLETE, f"a stop was lost: {self.told()}"
            final = self.finals.setdefault((answer_id, asked), (status, content))
            assert final == (status, content), f"a final state changed: {self.told()}"

    def teardown(self) -> None:
        if not hasattr(self, "stage"):
            return
        try:
            self.come_to_rest()
        finally:
            self.run(self.stage.close())
            self.run(self._made.__aexit__(None, None, None))
            self.loop.close()
            self.directory.cleanup()

    def come_to_rest(self) -> None:
        """Let nothing more go wrong: every answer ends, everybody is told, nobody is in the way."""
        while self.gates.late:
            self.run(self.gates.arrive_late(0))
        self.step_all(*self.processes())
        for _ in range(_ROUNDS):
            unfinished = self.unfinished()
            # What the reconciler finds, and what is left in the queue.
            jobs = [unfinished] if unfinished else list(self.stage.jobs.open)
            if not jobs:
                break
            self.run(self.stage.processes_end([self.processes()[0]]))
            self.stage.workers[0] = self.stage.new_worker()
            self.run(self.under_test.end_lease(SESSION))
            self.stage.workers[0].take(jobs[0])
            self.step_all(*self.processes())
        assert self.unfinished() is None, f"no end comes: {self.told()}"
        self.what_is_stored_and_shown_is_true()
        stored = self.run(self._stored())
        for answer_id, _, _, status, content in stored:
            shown = self.stage.reader.messages[answer_id]
            assert (shown["status"], shown["content"]) == (status, content), self.told()
        ends = [
            record["messageId"]
            for record in self.run(told(self.stage.database))
            if record["eventType"] in _ENDS
        ]
        assert len(ends) == len(self.finals), f"{ends} for {self.finals}: {self.told()}"

    # Looking and stepping.

    def idle(self) -> list[StagedWorker]:
        return [worker for worker in self.stage.workers if not worker.answering]

    def holding(self) -> list[StagedWorker]:
        return [worker for worker in self.stage.workers if worker.held is not None]

    def waiting(self) -> list[Process]:
        return [process for process in self.processes() if process.waiting]

    def let_go_on(self, process: Process, count: int) -> None:
        for _ in range(count):
            if not self.let(process, Leave.GO):
                break

    def let_go_on_to(self, process: Process, what: str, time: int) -> None:
        """Let a process go on until it waits to do this for the so-manieth time, or has ended."""
        for _ in range(30):
            waits_for = next(iter(process.waiting.values()), None)
            time -= waits_for == what
            if time == 0 or not self.let(process, Leave.GO):
                break

    def processes(self) -> list[Process]:
        return [*(worker.process for worker in self.stage.workers), self.stage.web]

    def let(self, process: Process, leave: Leave) -> bool:
        """Let a process take one step, and look at what is stored then."""
        moved = self.run(self.gates.give(process, leave))
        for answer_id, _, attempt, _, _ in self.run(self._stored()):
            self.began.setdefault((answer_id, attempt), process.name)
        if moved:
            self.what_is_stored_is_true()
        return moved

    def step_all(self, *processes: Process) -> None:
        """Let processes go on, and time pass where nothing else helps, until they have ended."""
        workers: list[StagedWorker] = self.stage.workers
        for _ in range(3000):
            moved = [self.let(one, Leave.GO) for one in processes]
            if True not in moved:
                if not self.stage.web.busy and not any(one.answering for one in workers):
                    break
                self.loop.now += 0.2
                self.run(self.gates.settle())
        self.what_is_stored_and_shown_is_true()

    def unfinished(self) -> str | None:
        for answer_id, _, _, status, _ in self.run(self._stored()):
            if not Status(status).is_final:
                return answer_id
        return None

    def told(self) -> str:
        return "\n".join(["", *self.gates.story[-60:]])

    async def _stored(self) -> list[tuple[str, int, int, str, str]]:
        """Read the answers: id, how often they were asked for, attempt, status, content."""
        database: Database = self.stage.database
        async with database.read() as connection:
            rows = await connection.execute(
                select(
                    messages.c.id,
                    messages.c.attempt,
                    messages.c.status,
                    messages.c.content,
                    messages.c.completed_at,
                )
                .where(messages.c.role == Role.ASSISTANT.value)
                .order_by(messages.c.ordinal)
            )
            found = []
            for answer_id, attempt, status, content, _ in rows:
                asked = self.accepted.get(answer_id, 1)
                was_final = (answer_id, asked) in self.finals
                if was_final and not Status(status).is_final:
                    asked += 1
                found.append((answer_id, asked, attempt, status, content))
            return found
