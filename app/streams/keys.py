"""Every key and channel that Throughline uses in Redis, in one place.

All keys of a session carry its id as hash tag, so that a script that touches several of them runs
on Redis Cluster unchanged. Lifetimes: the keys of a session expire with the session log
(``LOG_TTL_SECONDS``, refreshed while it is written), the owner with the lease, the cached history
after ``CACHE_L2_TTL_SECONDS``. Keys without a lifetime are named in ``PERMANENT`` with the reason.
"""

from __future__ import annotations

JOBS = "chat:jobs"
"""Stream of answers to be generated; entries are deleted when done, so it holds open work only."""

JOBS_GROUP = "generation"
"""The one consumer group on JOBS; each worker is a consumer under its node id."""

RECONCILER = "chat:reconciler"
"""Held for a few seconds by the worker that looks for answers which nothing covers."""

MODELS = "chat:models"
"""Hash of what each worker says of its models' servers, by node id."""

PERMANENT = frozenset({JOBS})
"""Keys without a TTL: the job queue must outlast any pause, and is bounded by JOB_QUEUE_LIMIT."""


def log(session_id: str) -> str:
    """Name the session log, a stream."""
    return f"chat:stream:{{{session_id}}}"


def channel(session_id: str) -> str:
    """Name the channel on which a session's entries are published as they are appended."""
    return f"chat:stream:{{{session_id}}}"


def owner(session_id: str) -> str:
    """Name the lease: ``<node_id>:<token>``."""
    return f"session:owner:{{{session_id}}}"


def token(session_id: str) -> str:
    """Name the last fencing token that was given out."""
    return f"session:token:{{{session_id}}}"


def active(session_id: str) -> str:
    """Name the hash of the unfinished answer: message_id, attempt, index, turn, run."""
    return f"streaming:active:{{{session_id}}}"


def partial(session_id: str) -> str:
    """Name the text so far of the unfinished answer."""
    return f"streaming:partial:{{{session_id}}}"


def cancel(session_id: str, message_id: str) -> str:
    """Name the flag that an answer is to be stopped."""
    return f"streaming:cancel:{{{session_id}}}:{message_id}"


def cache(session_id: str) -> str:
    """Name the copy of what a settled session holds, for other nodes to read."""
    return f"cache:session:{{{session_id}}}"


def worker_channel(node_id: str) -> str:
    """Name the channel on which one worker is told of stops."""
    return f"chat:worker:{node_id}"


def session_of_channel(name: str) -> str:
    """Give the session id that ``channel`` made this name of."""
    return name[name.index("{") + 1 : -1]
