"""What a follower of a session is sent: entries of the log, and control frames beside them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from app.domain.events import Entry
from app.domain.messages import Message
from app.domain.position import Position

PROTOCOL_VERSION = 1


class HistoryReason(enum.StrEnum):
    """Why a client is given the whole state instead of what it missed."""

    INITIAL = "initial"
    TRIMMED = "trimmed"
    EPOCH = "epoch"


class ByeReason(enum.StrEnum):
    """Why the server ends a stream."""

    DRAIN = "drain"
    LIFETIME = "lifetime"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    SESSION_DELETED = "session_deleted"


class Welcome(msgspec.Struct, frozen=True):
    """First frame of every stream."""

    protocol: int
    session_id: str
    node_id: str
    transport: str
    heartbeat_seconds: float


class History(msgspec.Struct, frozen=True):
    """The whole state at ``position``; the client replaces everything that it has."""

    messages: Sequence[Message]
    position: str
    reason: HistoryReason


class Bye(msgspec.Struct, frozen=True):
    """The server ends the stream; come back after ``after_ms`` where ``reconnect`` says so."""

    reason: ByeReason
    reconnect: bool
    after_ms: int


class Entries(NamedTuple):
    """Log entries in order, without a gap, right after what was sent before."""

    entries: Sequence[Entry]

    @property
    def position(self) -> Position:
        """Where the client stands after these."""
        return self.entries[-1].position


class Heartbeat(NamedTuple):
    """Nothing happened for a while, and the connection is alive."""


Frame = Welcome | History | Entries | Heartbeat | Bye
