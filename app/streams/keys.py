"""Every key and channel that Throughline uses in Redis, in one place.

All keys of a session carry its id as hash tag, so that a script that touches several of them runs
on Redis Cluster unchanged. Lifetimes: the keys of a session expire with the session log
(``LOG_TTL_SECONDS``, refreshed while it is written), the owner with the lease, the cached history
after ``CACHE_L2_TTL_SECONDS``. Keys without a lifetime are named in ``PERMANENT`` with the reason.
"""

from __future__ import annotations

JOBS = "chat:jobs"
"""Stream of places in the queue; entries are deleted when done, so it holds open work only."""

WAITING = f"chat:waiting:{{{JOBS}}}"
"""Sorted set of the jobs that no worker has yet, by their turns; see ``lua/enqueue.lua``."""

TAKEN = f"chat:taken:{{{JOBS}}}"
"""Hash of the jobs that workers have, by the entry of JOBS that each was given for."""

TURNS = f"chat:turns:{{{JOBS}}}"
"""Sorted set of users by the last turn of each, while it is not over."""

JOBS_GROUP = "generation"
"""The one consumer group on JOBS; each worker is a consumer under its node id."""

RECONCILER = "chat:reconciler"
"""Held for a few seconds by the worker that looks for answers which nothing covers."""

HOUSEKEEPER = "chat:housekeeper"
"""Held for a few seconds by the worker that removes what is to be removed."""

MODELS = "chat:models"
"""Hash of what each worker says of its models' servers, by node id."""

REVOKED = "{auth}:revoked"
"""Sorted set of what was revoked, by the Unix time at which no token has it any more; expires with
the last one."""

REVOKED_VERSION = "{auth}:revoked:version"
"""A value that every change of REVOKED replaces: who has seen it need not read the set again."""

REVOKED_CHANNEL = "{auth}:revoked"
"""Channel on which nodes are told of revocations."""

PERMANENT = frozenset({JOBS, WAITING, TAKEN, TURNS})
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


def reasoning(session_id: str) -> str:
    """Name what the model of the unfinished answer thought so far."""
    return f"streaming:reasoning:{{{session_id}}}"


def cancel(session_id: str, message_id: str) -> str:
    """Name the flag that an answer is to be stopped."""
    return f"streaming:cancel:{{{session_id}}}:{message_id}"


def cache(session_id: str) -> str:
    """Name the copy of what a settled session holds, for other nodes to read."""
    return f"cache:session:{{{session_id}}}"


def limit(subject: str, bucket: str) -> str:
    """Name the time at which one of a subject's buckets is empty; see ``lua/limit.lua``."""
    return f"limit:{{{subject}}}:{bucket}"


def sign_in(subject: str, address: str) -> str:
    """Name the hash of the tries to sign in to an account from an address: count, until."""
    return f"sign-in:{{{subject}}}:{address}"


def ticket(digest: str) -> str:
    """Name what a ticket stands for; expires with the ticket."""
    return f"auth:ticket:{digest}"


def worker_channel(node_id: str) -> str:
    """Name the channel on which one worker is told of stops."""
    return f"chat:worker:{node_id}"


def session_of_channel(name: str) -> str:
    """Give the session id that ``channel`` made this name of."""
    return name[name.index("{") + 1 : -1]
