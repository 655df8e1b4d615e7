"""An event on its way out: written with the state it speaks of, published later."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class OutboxEvent(NamedTuple):
    """A record for a topic, encoded once; events of one key are published in the order written."""

    topic: str
    key: str
    """The session id, so that one session's events stay in one partition; else the user's."""
    event_type: str
    payload: bytes
    """The whole record, JSON in UTF-8."""
    event_id: str
    """Consumers drop a second record with the same id."""
    created_at: datetime
