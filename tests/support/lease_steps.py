"""Lets a stage's processes take their steps, and judges after each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from app.domain.position import BEFORE_ALL
from tests.support.contract_client import ContractClient
from tests.support.conversations import told
from tests.support.gates import Gates, Leave, Process, StageLoop
from tests.support.lease_judge import Judge
from tests.support.lease_stage import (
    SESSION,
    WHOLE,
    LeaseStage,
    OnStage,
    StagedWorker,
    unsigned,
)
from tests.support.session_logs import LogUnderTest, valkey_under_test
from workers.generation.held import NOT_BEGUN

_Found = TypeVar("_Found")

_ENDS = {"STREAM_COMPLETED", "STREAM_CANCELLED", "STREAM_FAILED"}
_ROUNDS = 12

THE_END = "the end"
"""The transaction that stores a worker's final state."""


class LeaseSteps:
    """Two workers, a web node and two readers on a stage, whose steps are taken one by one."""

    template: Path
    """A migrated database, to be copied."""
    valkey: str | None = None
    """A server's URL; None for the log in memory."""

    def __init__(self) -> None:
        self.loop = StageLoop()
        self.gates = Gates(self.loop)
        self.directory = tempfile.TemporaryDirectory(prefix="throughline-machine-")

    def run(self, made: Coroutine[Any, Any, _Found]) -> _Found:
        return self.loop.run_until_complete(made)

    @asynccontextmanager
    async def _memory(self) -> Any:
        yield OnStage(self.loop)

    def set(self, *, continues: bool) -> None:
        """Set the stage; nothing was asked yet. ``continues``: models go on from the middle."""
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
        self.judge = Judge(path, self.stage.witness, continues=continues)

    def look(self, who: Process | None = None) -> None:
        """Fail where anything is stored or shown that must not be."""
        assert not self.gates.crashes, f"{self.gates.crashes}: {self.told()}"
        try:
            self.judge.look(None if who is None else who.name)
            self.run(self.stage.read(self.stage.reader))
            self.what_is_shown_is_true()
        except AssertionError as refused:
            raise AssertionError(f"{refused}: {self.told()}") from refused

    def what_is_shown_is_true(self) -> None:
        for shown in self.stage.reader.messages.values():
            if shown.get("role", "assistant") == "assistant":
                assert WHOLE.startswith(unsigned(shown["content"])), f"{shown} was not said"
                self.judge.has_one_voice(shown["content"])
        active = self.run(self.under_test.log.snapshot(SESSION)).active
        for row in self.judge.stored():
            written = None if active is None else (active.message_id, active.attempt)
            if written != (row.answer_id, row.attempt) or row.is_final:
                continue
            if written in self.stage.witness.said:
                shown = self.stage.reader.messages[row.answer_id]
                assert active, written
                assert shown["content"] == active.text, f"{shown} is shown, written is {active}"

    def close(self) -> None:
        if hasattr(self, "stage"):
            self.judge.close()
            self.run(self.stage.close())
            self.run(self._made.__aexit__(None, None, None))
        self.loop.close()
        self.directory.cleanup()

    def come_to_rest(self) -> None:
        """Let nothing more go wrong: every answer ends, everybody is told, nobody is in the way."""
        while self.gates.late:
            self.run(self.gates.arrive_late(0))
            self.look()
        self.step_all(*self.processes())
        for _ in range(_ROUNDS):
            unfinished = self.unfinished()
            # What the reconciler finds, and what is left in the queue.
            jobs = [unfinished] if unfinished else list(self.stage.jobs.open)
            if not jobs:
                break
            self.run(self.stage.processes_end([self.processes()[0]]))
            self.stage.workers[0] = self.stage.new_worker()
            self.end_lease()
            self.stage.workers[0].take(jobs[0])
            self.step_all(*self.processes())
        assert self.unfinished() is None, f"no end comes: {self.told()}"
        self.look()
        if self.run(self.under_test.log.tails([SESSION])) == [BEFORE_ALL]:
            # A node begins such a log anew for who comes back to it: ``test_lost_logs``.
            self.stage.sleeper = ContractClient()
        self.run(self.stage.read(self.stage.sleeper))
        for reader in (self.stage.reader, self.stage.sleeper):
            for row in self.judge.stored():
                shown = reader.messages[row.answer_id]
                told_of = (shown["status"], shown["content"])
                assert told_of == (row.status, row.content), f"{shown}, {row}: {self.told()}"
        ends = [
            record["messageId"]
            for record in self.run(told(self.stage.database))
            if record["eventType"] in _ENDS
        ]
        finals = self.judge.finals
        assert len(ends) == len(finals), f"{ends} for {finals}: {self.told()}"

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
            time -= self.waits_for(process) == what
            if time == 0 or not self.let(process, Leave.GO):
                break

    def waits_for(self, process: Process) -> str | None:
        """Name the step that a process waits to take next."""
        named = next(iter(process.waiting.values()), None)
        if named != "database write":
            return named
        begun = any(
            worker.process is process
            and worker.held is not None
            and worker.held.attempt != NOT_BEGUN
            for worker in self.stage.workers
        )
        return THE_END if begun else named

    def processes(self) -> list[Process]:
        return [*(worker.process for worker in self.stage.workers), self.stage.web]

    def let(self, process: Process, leave: Leave) -> bool:
        """Let a process take one step, and look at what is stored then."""
        moved = self.run(self.gates.give(process, leave))
        if moved:
            self.look(process)
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
        self.look()

    def unfinished(self) -> str | None:
        for row in self.judge.stored():
            if not row.is_final:
                return row.answer_id
        return None

    def latest(self) -> str:
        """Give the answer that was asked for last."""
        return next(reversed(self.judge.asked))

    def end_lease(self) -> None:
        self.run(self.under_test.end_lease(SESSION))
        self.stage.witness.lease_ended()

    def told(self) -> str:
        return "\n".join(["", *self.gates.story[-60:]])
