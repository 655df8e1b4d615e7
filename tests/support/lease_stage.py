"""One session's workers and web node, each the product's own, stepping through gates."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import msgspec
import structlog

from app.chat.reading import Reading
from app.chat.service import Chat
from app.chat.settling import Settling
from app.db.engine import Database
from app.domain.caller import Caller
from app.domain.errors import ChatError
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import judge
from app.events.envelope import EventBuilder
from app.models.client import Finished, GenerationRequest, Pieces
from app.models.registry import ModelRegistry
from app.streams.jobs import Job
from app.streams.memory_log import MemorySessionLog
from app.streams.session_log import SessionLog
from app.telemetry import create_metrics
from tests.support.contract_client import ContractClient
from tests.support.conversations import new_id
from tests.support.gates import GatedDatabase, GatedLog, Gates, Process, StageLoop
from tests.support.lease_witness import Witness
from tests.support.scribe import tell
from tests.support.session_logs import MemoryUnderTest
from workers.generation import answering as answering_module
from workers.generation import attempt as attempt_module
from workers.generation.answering import Answering
from workers.generation.attempt import AnswerLimits, AnswerParts, Ended
from workers.generation.flusher import INTERRUPTIONS, Flusher
from workers.generation.held import HeldAnswer, Interruption

if TYPE_CHECKING:
    from app.streams.jobs import JobQueue

SESSION = "s-1"
CALLER = Caller("ada", "Ada")
LEASE_MS = 6_000
MAX_ATTEMPTS = 3
PIECES = ("one", " two", " three", " four")
WHOLE = "".join(PIECES)
_SIGNED = re.compile(r"\(([^)]*)\)")


def said_by(content: str) -> list[str]:
    """Name the processes whose words an answer has, one for each word."""
    return _SIGNED.findall(content)


def unsigned(content: str) -> str:
    """Give the words alone."""
    return _SIGNED.sub("", content)


class SteppedModel:
    """Writes PIECES, each after it was given leave, and signs them with its process's name."""

    model_id = "demo"
    name = "Words"
    kind = "demo"

    def __init__(self, process: Process, *, continues: bool) -> None:
        self.continues = continues
        self._process = process

    async def continues_from(self, request: GenerationRequest) -> bool:
        return not request.kept or self.continues

    async def generate(self, request: GenerationRequest) -> Pieces:
        for piece in PIECES[len(request.kept.split()) :]:
            if piece != PIECES[1]:  # which comes with the one before: a batch of more than one
                await self._process.ask_leave("model")
            yield f"{piece}({self._process.name})"
        yield Finished(None, "stop")

    async def close(self) -> None:
        """Nothing is held."""


class Jobs:
    """The queue as a web node and the reconciler fill it; who takes what when is the test's."""

    def __init__(self) -> None:
        self.open: dict[str, None] = {}

    async def depth(self) -> int:
        return 0

    async def enqueue(self, _session_id: str, message_id: str, _user_id: str) -> None:
        self.open[message_id] = None


class StagedWorker:
    """A worker process, with the product's own parts for one answer at a time."""

    def __init__(self, stage: LeaseStage, name: str) -> None:
        self.process = Process(stage.gates, name)
        self.held: HeldAnswer | None = None
        self._stage = stage
        self._log = GatedLog(self.process, stage.log).log
        database = GatedDatabase(self.process, stage.gates, stage.database).database
        events = EventBuilder(name, new_id)
        flusher = Flusher(self._log, interval_ms=0, metrics=stage.metrics)
        self._answering = Answering(
            AnswerParts(
                node_id=name,
                database=database,
                log=self._log,
                settling=stage.settling(self._log, database, events, name),
                models=ModelRegistry(
                    [SteppedModel(self.process, continues=stage.continues)], default="demo"
                ),
                events=events,
                flusher=flusher,
                limits=AnswerLimits(
                    lease_ms=LEASE_MS,
                    max_attempts=MAX_ATTEMPTS,
                    max_turns=10,
                    max_characters=1000,
                    storing_seconds=30,
                ),
                clock=stage.clock,
                metrics=stage.metrics,
            )
        )
        self.process.begin(flusher._run())
        self.answering = False

    def take(self, message_id: str) -> None:
        """Begin to answer; the queue may give a job to several workers, and again."""
        assert not self.answering
        self.answering = True
        self.process.begin(self._answer(message_id))

    def renew(self) -> None:
        """Renew the lease, as the worker does every so often."""
        if self.held is not None:
            self.process.begin(self._renew(self.held))

    def hand_over(self) -> None:
        """Be told to stop."""
        if self.held is not None:
            self.held.interrupt(Interruption.HANDOVER)

    async def _answer(self, message_id: str) -> None:
        def register(held: HeldAnswer) -> None:
            self.held = held

        try:
            ended = await self._answering.answer(Job("1-1", SESSION, message_id, 0), register)
            self._stage.gates.story.append(f"{self.process.name}: {ended.name}")
            if ended is Ended.DONE:
                self._stage.jobs.open.pop(message_id, None)
        except ChatError as failure:
            # As ``Worker._work`` does: the job is left pending.
            self._stage.gates.story.append(f"{self.process.name}: {failure.code}")
        finally:
            self.held = None
            self.answering = False

    async def _renew(self, held: HeldAnswer) -> None:
        with contextlib.suppress(ChatError):
            renewing = [(held.lease, held.job.message_id, held.attempt)]
            (outcome,) = await self._log.renew(renewing, LEASE_MS)
            if outcome in INTERRUPTIONS:
                held.interrupt(INTERRUPTIONS[outcome])


class OnStage(MemoryUnderTest):
    """The log in memory, whose leases end by the stage's clock."""

    def __init__(self, loop: StageLoop) -> None:
        super().__init__(max_entries=1000)
        epochs = itertools.count(1000)
        self.log = MemorySessionLog(
            max_entries=1000, clock=loop.time, epoch_clock=lambda: next(epochs)
        )
        self._loop = loop

    async def end_lease(self, session_id: str) -> None:
        self._loop.now += 2 * LEASE_MS / 1000


class LeaseStage:
    """A database, a log, and who comes and goes around them."""

    def __init__(
        self, gates: Gates, log: SessionLog, database_url: str, *, continues: bool
    ) -> None:
        self.gates = gates
        self.witness = Witness(
            log,
            SESSION,
            continues=continues,
            clock=gates.loop.time if isinstance(log, MemorySessionLog) else None,
        )
        self.log = self.witness.log
        self.database = Database(database_url)
        self.continues = continues
        self.metrics = create_metrics()
        self.jobs = Jobs()
        self.reading = Reading(self.database, self.log)
        self.reader = ContractClient()
        """Reads after every step."""
        self.sleeper = ContractClient()
        """Reads now and then, and resumes from where it had been."""
        self._names = 0
        self._patches = contextlib.ExitStack()
        clock = SimpleNamespace(monotonic=gates.loop.time)
        for module in (answering_module, attempt_module):
            self._patches.enter_context(mock.patch.object(module, "time", clock))
        self.workers = [self.new_worker() for _ in range(2)]
        self.web = Process(gates, "web")

    def clock(self) -> datetime:
        return datetime.fromtimestamp(self.gates.loop.now, UTC)

    def new_worker(self) -> StagedWorker:
        """Start a worker; no two have the same name."""
        self._names += 1
        return StagedWorker(self, f"worker-{self._names}")

    def settling(
        self, log: SessionLog, database: Database, events: EventBuilder, node_id: str
    ) -> Settling:
        return Settling(
            database=database,
            log=log,
            events=events,
            node_id=node_id,
            lease_ms=LEASE_MS,
            clock=self.clock,
        )

    def chat(self) -> Chat:
        """Make the service as the web node of the moment has it."""
        log = GatedLog(self.web, self.log).log
        database = GatedDatabase(self.web, self.gates, self.database).database
        events = EventBuilder(self.web.name, new_id)
        return Chat(
            database=database,
            log=log,
            jobs=cast("JobQueue", self.jobs),
            reading=Reading(database, log),
            settling=self.settling(log, database, events, self.web.name),
            models=ModelRegistry([SteppedModel(self.web, continues=True)], default="demo"),
            events=events,
            queue_limit=10,
            deletion=cast("Any", None),  # nobody deletes here
            new_id=new_id,
            clock=self.clock,
            logger=structlog.get_logger("app.chat"),
        )

    def new_web(self) -> None:
        """Let another web node take the place of the one that is there."""
        self._names += 1
        self.web = Process(self.gates, f"web-{self._names}")

    def ask(self) -> None:
        self.web.begin(
            _quietly(
                self.chat().ask(
                    CALLER, text="Count.", session_id=SESSION, client_message_id=None, model=None
                )
            )
        )

    def ask_again(self, message_id: str) -> None:
        self.web.begin(_quietly(self.chat().regenerate(CALLER, message_id)))

    def stop(self, message_id: str) -> None:
        self.web.begin(_quietly(self.chat().cancel(CALLER, message_id)))

    async def read(self, reader: ContractClient) -> None:
        """Let a reader take all there is, as a node would give it; it refuses what is wrong."""
        while True:
            position = reader.position
            after = BEFORE_ALL if position is None else Position.parse(position)
            held = await self.log.read(SESSION, after, 1000)
            reason = judge(after, held.first, held.last, original=held.original)
            if position is not None and reason is None:
                tell(reader, held.entries)
                return
            with contextlib.suppress(ChatError):
                page = await self.reading.whole(SESSION, CALLER.user_id)
                frame = {
                    "messages": json.loads(msgspec.json.encode(page.items)),
                    "position": page.position,
                    "reason": "initial" if reason is None else reason.value,
                }
                reader.apply(page.position, "history", frame)
            return

    async def processes_end(self, processes: Sequence[Process]) -> None:
        """Kill them, and wait until nothing of them runs."""
        for process in processes:
            process.kill()
        await self.gates.settle()

    async def close(self) -> None:
        await self.processes_end([self.web, *(worker.process for worker in self.workers)])
        await self.database.close()
        self._patches.close()


async def _quietly(work: Any) -> None:
    with contextlib.suppress(ChatError):
        await work
