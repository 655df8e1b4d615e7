"""Composition root of the worker roles: ``throughline worker generation``."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
from prometheus_client import start_http_server

from app.chat.deletion import Deletion
from app.chat.settling import Settling
from app.composition import clock_of, database_of, models_of, new_id
from app.ending import end
from app.events.envelope import EventBuilder
from app.models.watching import report, watch
from app.streams import keys
from app.streams.connection import connect
from app.streams.election import Election
from app.streams.jobs import JobQueue
from app.streams.model_reports import ModelReports
from app.streams.redis_log import RedisSessionLog
from app.streams.subscriber import Subscriber
from app.telemetry import configure_logging, create_metrics
from workers.generation.answering import Answering
from workers.generation.attempt import AnswerLimits, AnswerParts
from workers.generation.flusher import Flusher
from workers.generation.housekeeping import Housekeeper
from workers.generation.reconciler import Reconciler
from workers.generation.worker import Worker, WorkerLimits
from workers.process import on_stop_signal

if TYPE_CHECKING:
    from app.config import Settings
    from app.models.registry import ModelRegistry

_MAX_TURNS = 200
_STORING_SECONDS = 60.0

logger = structlog.get_logger(__name__)


def run(settings: Settings, role: str) -> int:
    """Run one worker role until SIGTERM; give the exit status."""
    configure_logging(environment=settings.environment, level=settings.log_level)
    try:
        import uvloop
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner:
        match role:
            case "generation":
                runner.run(generate(settings, models_of(settings)))
            case _:
                raise ValueError(role)
    return 0


async def generate(settings: Settings, models: ModelRegistry) -> None:
    """Generate answers until told to stop; closes the models."""
    lease_ms = int(settings.lease_ttl_seconds * 1000)
    timeout = settings.redis_timeout_seconds
    redis = connect(settings.redis_address, timeout_seconds=timeout, max_connections=50)
    blocking = connect(settings.redis_address, timeout_seconds=timeout + 1, max_connections=4)
    database = database_of(settings)
    metrics = create_metrics()
    watch(models, metrics)
    log = RedisSessionLog(
        redis, ttl_seconds=settings.log_ttl_seconds, max_entries=settings.log_max_entries
    )
    jobs = JobQueue(redis, consumer=settings.node_id, blocking=blocking)
    events = EventBuilder(settings.node_id, new_id)
    flusher = Flusher(log, interval_ms=settings.flush_interval_ms, metrics=metrics)
    answering = Answering(
        AnswerParts(
            node_id=settings.node_id,
            database=database,
            log=log,
            settling=Settling(
                database=database,
                log=log,
                events=events,
                node_id=settings.node_id,
                lease_ms=lease_ms,
                clock=clock_of(settings),
            ),
            models=models,
            events=events,
            flusher=flusher,
            limits=AnswerLimits(
                lease_ms=lease_ms,
                max_attempts=settings.max_attempts,
                max_turns=_MAX_TURNS,
                max_characters=settings.model_max_characters,
                storing_seconds=_STORING_SECONDS,
            ),
            clock=clock_of(settings),
            metrics=metrics,
        )
    )
    worker = Worker(
        node_id=settings.node_id,
        log=log,
        jobs=jobs,
        answering=answering,
        limits=WorkerLimits(
            concurrency=settings.worker_concurrency,
            lease_ms=lease_ms,
            stop_seconds=settings.worker_stop_seconds,
        ),
        metrics=metrics,
    )
    subscriber = Subscriber(
        settings.redis_address, on_message=worker.told, on_subscribed=lambda _: None
    )
    subscriber.subscribe(keys.worker_channel(settings.node_id))
    reconciler = Reconciler(
        database=database,
        jobs=jobs,
        election=Election(
            redis,
            key=keys.RECONCILER,
            node_id=settings.node_id,
            ttl_ms=int(settings.reconcile_seconds * 3000),
        ),
        period_seconds=settings.reconcile_seconds,
        metrics=metrics,
    )
    housekeeper = Housekeeper(
        database=database,
        deletion=Deletion(
            database=database,
            log=log,
            events=events,
            undo_seconds=settings.delete_undo_seconds,
            clock=clock_of(settings),
            logger=structlog.get_logger("app.chat"),
        ),
        election=Election(
            redis,
            key=keys.HOUSEKEEPER,
            node_id=settings.node_id,
            ttl_ms=int(settings.reconcile_seconds * 3000),
        ),
        period_seconds=settings.reconcile_seconds,
        retention=timedelta(days=settings.retention_days) if settings.retention_days else None,
        clock=clock_of(settings),
    )
    if settings.worker_metrics_port:
        # In a thread of its own, with every path: a worker has no other HTTP.
        start_http_server(
            settings.worker_metrics_port, addr=settings.host, registry=metrics.registry
        )
    on_stop_signal(worker.stop)
    subscriber.start()
    flusher.start()
    reconciling = asyncio.ensure_future(reconciler.run())
    keeping_house = asyncio.ensure_future(housekeeper.run())
    reports = ModelReports(redis, clock=clock_of(settings))
    reporting = asyncio.ensure_future(report(models, partial(reports.tell, settings.node_id)))
    logger.info(
        "worker_started", node_id=settings.node_id, models=[m.id for m in models.describe()]
    )
    try:
        await worker.run()
    finally:
        await end(reconciling, keeping_house, reporting)
        await flusher.close()
        await subscriber.close()
        await models.close()
        log.close()
        await redis.aclose(close_connection_pool=True)
        await blocking.aclose(close_connection_pool=True)
        await database.close()
        logger.info("worker_stopped", node_id=settings.node_id)
