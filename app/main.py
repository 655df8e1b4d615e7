"""Composition root of a web node: ``throughline web``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog
from litestar import Litestar
from redis.asyncio import Redis

from app.accounts.accounts import Accounts
from app.accounts.erasure import AccountErasure
from app.accounts.passwords import Passwords
from app.chat.deletion import Deletion
from app.chat.exporting import Exporting
from app.chat.following import Following, FollowingLimits
from app.chat.history_cache import HistoryCache
from app.chat.reading import Reading
from app.chat.service import Chat
from app.chat.settling import Settling
from app.chat.tails import TailLimits, Tails
from app.composition import (
    accounts_of,
    clock_of,
    database_of,
    issuer_of,
    models_of,
    new_id,
    verifier_of,
)
from app.db.engine import Database
from app.ending import end
from app.events.envelope import EventBuilder
from app.models.registry import ModelRegistry
from app.models.watching import hear
from app.streams import keys
from app.streams.connection import connect, reachable
from app.streams.jobs import JobQueue
from app.streams.limits import RedisLimiter, SignInLimits, SignInRates
from app.streams.model_reports import ModelReports
from app.streams.redis_log import RedisSessionLog
from app.streams.revocations import Revocations
from app.streams.session_cache import TIMEOUT_SECONDS, SessionCache
from app.streams.subscriber import Subscriber
from app.streams.tickets import Tickets
from app.telemetry import Metrics, create_metrics
from app.web.application import create_application
from app.web.assets import Assets
from app.web.auth import Gatekeeper
from app.web.bodies import read_csrf_field
from app.web.condition import Check, Condition
from app.web.cookies import Cookies
from app.web.csrf import Csrf
from app.web.limits import LimitRates, Limits
from app.web.model_choice import ModelChoice
from app.web.openapi import openapi_document
from app.web.parts import Parts
from app.web.rendering import Rendering
from app.web.server import Server, listen

if TYPE_CHECKING:
    from app.config import Settings

_REDIS_CONNECTIONS = 100
_CACHE_CONNECTIONS = 8
_CLOSE_SECONDS = 1.0
_DISK_FREE_BYTES = 500 * 1024 * 1024
_HERE = Path(__file__).parent


def create_app(settings: Settings) -> Litestar:
    """Make the application of one web node; it connects when its lifespan begins."""
    return build_node(settings).application


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; exit with status 1 where the port cannot be had."""
    try:
        listener = listen(
            settings.host, settings.port, stalled_seconds=settings.stream_send_timeout_seconds
        )
    except OSError as error:
        # Some have no text of their own, and some none that names what was asked for.
        reason = error.strerror or str(error)
        sys.exit(f"throughline: cannot listen on {settings.host} port {settings.port}: {reason}")
    node = build_node(settings)
    Server(
        node.application,
        drain=node.following.drain,
        drain_seconds=settings.drain_seconds,
        websocket_deflate=settings.websocket_deflate,
    ).run(sockets=[listener])
    # The interpreter's last act is to look for cycles in all that was ever imported: half a second
    # that whoever waits for this process would wait as well. Nothing is left that needs it.
    gc.freeze()


class Node(NamedTuple):
    """A web node, ready to be served."""

    application: Litestar
    following: Following
    accounts: Accounts


def build_node(settings: Settings) -> Node:
    """Make all parts and put them together; nothing connects yet."""
    metrics = create_metrics()
    stores = _Stores(
        redis=connect(
            settings.redis_address,
            timeout_seconds=settings.redis_timeout_seconds,
            max_connections=_REDIS_CONNECTIONS,
        ),
        cache=connect(
            settings.redis_address,
            timeout_seconds=TIMEOUT_SECONDS,
            max_connections=_CACHE_CONNECTIONS,
        ),
        database=database_of(settings),
        models=models_of(settings),
    )
    limiter = RedisLimiter(stores.redis, timeout_seconds=settings.rate_limit_timeout_seconds)
    log = RedisSessionLog(
        stores.redis, ttl_seconds=settings.log_ttl_seconds, max_entries=settings.log_max_entries
    )
    reading = Reading(stores.database, log, _build_cache(settings, stores, metrics))
    revocations = Revocations(stores.redis, on_change=lambda: following.end_revoked())  # noqa: PLW0108
    tails, subscriber = _build_tails(settings, log, revocations, metrics)
    following = Following(
        node_id=settings.node_id,
        database=stores.database,
        log=log,
        tails=tails,
        reading=reading,
        limits=FollowingLimits(
            lifetime_seconds=settings.stream_lifetime_seconds,
            heartbeat_seconds=settings.stream_heartbeat_seconds,
            connections_per_user=settings.connections_per_user,
        ),
        metrics=metrics,
        is_revoked=revocations.is_revoked,
    )
    passwords = Passwords()
    verifier = verifier_of(settings)
    accounts = accounts_of(
        settings,
        database=stores.database,
        passwords=passwords,
        issuer=issuer_of(settings),
        revoker=revocations,
    )
    choice = ModelChoice(stores.models)
    reports = ModelReports(stores.redis, clock=clock_of(settings))
    parts = Parts(
        accounts=accounts,
        erasure=AccountErasure(
            database=stores.database,
            passwords=passwords,
            revoker=revocations,
            clock=clock_of(settings),
            logger=structlog.get_logger("app.accounts"),
        ),
        exporting=Exporting(stores.database, clock_of(settings)),
        cookies=Cookies(
            is_secure=(settings.public_origin or "").startswith("https:"),
            lifetime_seconds=settings.sign_in_days * 86_400,
        ),
        csrf=Csrf(settings.signing_key(), read_csrf_field),
        is_development=settings.is_development,
        chat=_build_chat(settings, stores, log, reading),
        following=following,
        gatekeeper=Gatekeeper(
            verifier,
            Tickets(stores.redis),
            is_revoked=revocations.is_revoked,
            accounts=accounts,
            is_development=settings.is_development,
            public_origin=settings.public_origin,
        ),
        limits=_build_limits(settings, limiter, metrics),
        metrics=metrics,
        rendering=Rendering(_HERE / "templates", Assets(_HERE / "static"), choice),
        openapi=openapi_document(importlib.metadata.version("throughline")),
        checks=_checks(settings, stores, subscriber, reports),
        node_id=settings.node_id,
        retry_ms=settings.stream_retry_ms,
        send_timeout_seconds=settings.stream_send_timeout_seconds,
        trusted_proxies=settings.trusted_networks,
        strict_transport=(settings.public_origin or "").startswith("https:"),
    )

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        subscriber.start()
        await revocations.start()
        tails.start()
        hearing = asyncio.ensure_future(hear(stores.models, reports.going_on, choice.learn))
        try:
            yield
        finally:
            passwords.close()
            await end(hearing)
            for close in (
                tails.close,
                revocations.close,
                subscriber.close,
                limiter.close,
                verifier.close,
                stores.close,
            ):
                # Before Python 3.12 a task may miss its cancellation while it speaks to Redis
                # (asyncio.wait_for); whoever waits for its end would never return.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(close(), _CLOSE_SECONDS)

    return Node(create_application(parts, lifespan), following, accounts)


class _Stores(NamedTuple):
    """What a node holds connections to."""

    redis: Redis
    cache: Redis
    database: Database
    models: ModelRegistry

    async def close(self) -> None:
        await self.models.close()
        await self.redis.aclose(close_connection_pool=True)
        await self.cache.aclose(close_connection_pool=True)
        await self.database.close()


def _build_cache(settings: Settings, stores: _Stores, metrics: Metrics) -> HistoryCache:
    ttl_seconds = settings.cache_l2_ttl_seconds
    return HistoryCache(
        stores.database,
        l1_max_size=settings.cache_l1_max_size,
        l2=SessionCache(stores.cache, ttl_seconds=ttl_seconds) if ttl_seconds else None,
        metrics=metrics,
    )


def _build_chat(
    settings: Settings, stores: _Stores, log: RedisSessionLog, reading: Reading
) -> Chat:
    events = EventBuilder(settings.node_id, new_id)
    return Chat(
        database=stores.database,
        log=log,
        jobs=JobQueue(stores.redis, consumer=settings.node_id),
        reading=reading,
        settling=Settling(
            database=stores.database,
            log=log,
            events=events,
            node_id=settings.node_id,
            lease_ms=int(settings.lease_ttl_seconds * 1000),
            clock=clock_of(settings),
        ),
        models=stores.models,
        events=events,
        queue_limit=settings.job_queue_limit,
        deletion=Deletion(
            database=stores.database,
            log=log,
            events=events,
            undo_seconds=settings.delete_undo_seconds,
            clock=clock_of(settings),
            logger=structlog.get_logger("app.chat"),
        ),
        new_id=new_id,
        clock=clock_of(settings),
        logger=structlog.get_logger("app.chat"),
    )


def _build_limits(settings: Settings, limiter: RedisLimiter, metrics: Metrics) -> Limits:
    return Limits(
        limiter,
        LimitRates(
            requests=settings.rate_limit_requests,
            questions=settings.rate_limit_questions,
            characters=settings.rate_limit_characters,
            streams=settings.rate_limit_streams,
            address=settings.rate_limit_address,
            frames=settings.rate_limit_frames,
            connections=settings.connections_per_address,
        ),
        sign_in=SignInLimits(
            limiter,
            SignInRates(
                per_account=settings.sign_in_failures_per_account,
                per_address=settings.sign_in_failures_per_address,
            ),
            refused=lambda bucket: metrics.limits_refused.labels(bucket=bucket).inc(),
            failed=lambda: metrics.limits_uncounted.labels(what="sign_ins").inc(),
        ),
        metrics=metrics,
    )


def _build_tails(
    settings: Settings, log: RedisSessionLog, revocations: Revocations, metrics: Metrics
) -> tuple[Tails, Subscriber]:
    # The two know each other: what is followed is subscribed to, what is published is followed.
    def published(channel: str, payload: bytes) -> None:
        if channel == keys.REVOKED_CHANNEL:
            revocations.published(payload)
        else:
            tails.published(channel, payload)

    def subscribed(channel: str) -> None:
        if channel == keys.REVOKED_CHANNEL:
            revocations.subscribed()
        else:
            tails.subscribed(channel)

    subscriber = Subscriber(settings.redis_address, on_message=published, on_subscribed=subscribed)
    subscriber.subscribe(keys.REVOKED_CHANNEL)
    tails = Tails(
        log,
        subscriber,
        limits=TailLimits(
            ring_entries=settings.tail_ring_entries,
            check_seconds=settings.tail_check_seconds,
            linger_seconds=settings.tail_linger_seconds,
        ),
        metrics=metrics,
    )
    return tails, subscriber


def _checks(
    settings: Settings, stores: _Stores, subscriber: Subscriber, reports: ModelReports
) -> Mapping[str, Check]:
    async def redis() -> Condition:
        with reachable():
            await stores.redis.ping()
        # Without publications the tails still follow the log, a few seconds behind.
        return Condition.UP if subscriber.connected else Condition.DEGRADED

    async def database() -> Condition:
        await stores.database.ping()
        return Condition.UP

    async def disk() -> Condition:
        usage = await asyncio.to_thread(shutil.disk_usage, _existing(settings.data_dir))
        return Condition.UP if usage.free >= _DISK_FREE_BYTES else Condition.DEGRADED

    async def models() -> Condition:
        said = await reports.read()
        asked = [asked for one in said for asked in one.values()]
        if asked and not any(asked):
            return Condition.DOWN
        return Condition.UP if all(asked) else Condition.DEGRADED

    return {
        "redis": redis,
        "database": database,
        # Events are rows of the database's outbox, written with the state they speak of.
        "events": database,
        "disk": disk,
        # What workers say: a web node asks no model.
        "models": models,
    }


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
