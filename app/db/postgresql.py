"""What is particular to PostgreSQL: the bounds of its connections, its errors."""

from __future__ import annotations

import math

import psycopg
from sqlalchemy import URL


def connect_arguments(url: URL, timeout_seconds: float) -> dict[str, object]:
    """Bound what a connection may wait for; libpq 33.1.2 and «Client Connection Defaults»."""
    timeout_ms = int(timeout_seconds * 1000)
    settings = {
        "lock_timeout": timeout_ms,
        "statement_timeout": 2 * timeout_ms,
        # A client that vanished inside a transaction must not keep its locks.
        "idle_in_transaction_session_timeout": 2 * timeout_ms,
        "timezone": "UTC",
    }
    ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
    given = url.normalized_query.get("options", ())
    return {
        "connect_timeout": max(2, math.ceil(timeout_seconds)),
        # What the operator asked for comes last, and wins.
        "options": " ".join((ours, *given)),
        # A server that vanished without a word is noticed by the kernel.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 2 * timeout_ms,
    }


def is_unavailable(error: psycopg.Error) -> bool:
    """Tell what may pass or is for the operator to mend from a mistake of ours."""
    return isinstance(
        error,
        # Operational: serialisation failures, deadlocks, timeouts, a server that shuts down.
        # Read-only: what we are connected to is a standby since a failover.
        psycopg.OperationalError | psycopg.InterfaceError | psycopg.errors.ReadOnlySqlTransaction,
    )
