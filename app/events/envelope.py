"""The records on ``chat-events`` and ``stream-events``: version 1, JSON in camelCase.

Whoever reads them may rely on the fields of the structs below being there in every record of the
topic, null where they say nothing, and on ``metadata`` having at least ``nodeId`` and ``duration``.
Fields may be added within version 1. Times are RFC 3339 in UTC, lengths are Unicode code points.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from app.domain.messages import Message, Session, Status, timestamp
from app.domain.outbox import OutboxEvent

CHAT_EVENTS: Final = "chat-events"
STREAM_EVENTS: Final = "stream-events"
EVENT_VERSION: Final = 1


class ChatEventType(enum.StrEnum):
    """What a person did, or got, in a session."""

    SESSION_STARTED = "SESSION_STARTED"
    SESSION_RENAMED = "SESSION_RENAMED"
    SESSION_DELETED = "SESSION_DELETED"
    SESSION_RESTORED = "SESSION_RESTORED"
    CHAT_MESSAGE = "CHAT_MESSAGE"
    USER_SIGNED_IN = "USER_SIGNED_IN"


class StreamEventType(enum.StrEnum):
    """How the generation of an answer went."""

    STREAM_STARTED = "STREAM_STARTED"
    STREAM_RECOVERED = "STREAM_RECOVERED"
    STREAM_COMPLETED = "STREAM_COMPLETED"
    STREAM_CANCELLED = "STREAM_CANCELLED"
    STREAM_FAILED = "STREAM_FAILED"


_ENDED_BY: Final = {
    Status.COMPLETE: StreamEventType.STREAM_COMPLETED,
    Status.CANCELLED: StreamEventType.STREAM_CANCELLED,
    Status.FAILED: StreamEventType.STREAM_FAILED,
}


class ChatEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A record on ``chat-events``."""

    event_id: str
    event_type: ChatEventType
    event_version: int = EVENT_VERSION
    timestamp: str
    session_id: str | None
    """None for what happened in none: somebody signed in."""
    user_id: str
    message_id: str | None = None
    conversation_id: str | None
    """The session: one conversation is one session."""
    role: str | None = None
    content: str | None = None
    metadata: dict[str, str | int | None]
    """``nodeId``; ``duration``, for an answer the milliseconds that it took; of a session its
    ``title``, and the ``reason`` of a deletion that its owner did not ask for; of a message
    ``status``, ``attempt``, ``model`` and what it is ``inReplyTo``; of a sign-in its ``signInId``
    and ``via`` what; ``redacted`` once the content was taken out."""


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A record on ``stream-events``; the totals are null until the answer has ended."""

    event_id: str
    event_type: StreamEventType
    event_version: int = EVENT_VERSION
    timestamp: str
    session_id: str
    message_id: str
    attempt: int
    total_chunks: int | None = None
    """Chunks of the attempt that ended the answer."""
    content_length: int | None = None
    """Of the whole answer, over all attempts that were continued."""
    duration_ms: int | None = None
    node_id: str
    model: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class EventBuilder:
    """Makes the events of one node, ready for the outbox."""

    def __init__(self, node_id: str, new_id: Callable[[], str]) -> None:
        """Take the node's name and what gives a new UUIDv7 for each event."""
        self._node_id = node_id
        self._new_id = new_id

    def session_started(self, session: Session, *, user_id: str, now: datetime) -> OutboxEvent:
        return self._about_session(ChatEventType.SESSION_STARTED, session, user_id, now)

    def session_renamed(self, session: Session, *, user_id: str, now: datetime) -> OutboxEvent:
        return self._about_session(ChatEventType.SESSION_RENAMED, session, user_id, now)

    def session_deleted(
        self, session: Session, *, user_id: str, now: datetime, reason: str | None = None
    ) -> OutboxEvent:
        """Tell that a session was deleted; with a reason where its owner did not ask for that."""
        return self._about_session(
            ChatEventType.SESSION_DELETED,
            session,
            user_id,
            now,
            **({} if reason is None else {"reason": reason}),
        )

    def session_restored(self, session: Session, *, user_id: str, now: datetime) -> OutboxEvent:
        return self._about_session(ChatEventType.SESSION_RESTORED, session, user_id, now)

    def chat_message(
        self,
        message: Message,
        *,
        user_id: str,
        now: datetime,
        in_reply_to: str | None = None,
        duration_ms: int | None = None,
    ) -> OutboxEvent:
        """Tell of a question, or of an answer's final state, with all of its text."""
        event = ChatEvent(
            event_id=self._new_id(),
            event_type=ChatEventType.CHAT_MESSAGE,
            timestamp=timestamp(now),
            session_id=message.session_id,
            user_id=user_id,
            message_id=message.message_id,
            conversation_id=message.session_id,
            role=message.role,
            content=message.content,
            metadata={
                "nodeId": self._node_id,
                "duration": duration_ms,
                "status": message.status,
                "attempt": message.attempt,
                "model": message.model,
                "inReplyTo": in_reply_to,
            },
        )
        return _outgoing(CHAT_EVENTS, event, now, key=message.session_id)

    def user_signed_in(
        self, *, user_id: str, sign_in_id: str, via: str, now: datetime
    ) -> OutboxEvent:
        """Tell that somebody signed in ``via`` a password, a one-time link or signing up."""
        event = ChatEvent(
            event_id=self._new_id(),
            event_type=ChatEventType.USER_SIGNED_IN,
            timestamp=timestamp(now),
            session_id=None,
            user_id=user_id,
            conversation_id=None,
            metadata={
                "nodeId": self._node_id,
                "duration": None,
                "signInId": sign_in_id,
                "via": via,
            },
        )
        return _outgoing(CHAT_EVENTS, event, now, key=user_id)

    def stream_started(self, message: Message, *, now: datetime) -> OutboxEvent:
        """Tell that the attempt that ``message`` stands at begins."""
        event = self._about_stream(StreamEventType.STREAM_STARTED, message, now)
        return _outgoing(STREAM_EVENTS, event, now, key=message.session_id)

    def stream_recovered(self, message: Message, *, now: datetime) -> OutboxEvent:
        """Tell that it begins because the attempt before it ended without a word."""
        event = self._about_stream(StreamEventType.STREAM_RECOVERED, message, now)
        return _outgoing(STREAM_EVENTS, event, now, key=message.session_id)

    def stream_ended(
        self, message: Message, *, total_chunks: int, duration_ms: int, now: datetime
    ) -> OutboxEvent:
        """Tell of an answer's final state. Raises ValueError for a message that has none."""
        event_type = _ENDED_BY.get(message.status)
        if event_type is None:
            raise ValueError(f"the answer has not ended, it is {message.status}")
        error, usage = message.error, message.usage
        event = msgspec.structs.replace(
            self._about_stream(event_type, message, now),
            total_chunks=total_chunks,
            content_length=len(message.content),
            duration_ms=duration_ms,
            error_code=None if error is None else error.code,
            error_detail=None if error is None else error.detail,
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            completion_tokens=None if usage is None else usage.completion_tokens,
        )
        return _outgoing(STREAM_EVENTS, event, now, key=message.session_id)

    def _about_session(
        self,
        event_type: ChatEventType,
        session: Session,
        user_id: str,
        now: datetime,
        **more: str,
    ) -> OutboxEvent:
        event = ChatEvent(
            event_id=self._new_id(),
            event_type=event_type,
            timestamp=timestamp(now),
            session_id=session.session_id,
            user_id=user_id,
            conversation_id=session.session_id,
            metadata={"nodeId": self._node_id, "duration": None, "title": session.title, **more},
        )
        return _outgoing(CHAT_EVENTS, event, now, key=session.session_id)

    def _about_stream(
        self, event_type: StreamEventType, message: Message, now: datetime
    ) -> StreamEvent:
        return StreamEvent(
            event_id=self._new_id(),
            event_type=event_type,
            timestamp=timestamp(now),
            session_id=message.session_id,
            message_id=message.message_id,
            attempt=message.attempt,
            node_id=self._node_id,
            model=message.model,
        )


def _outgoing(
    topic: str, event: ChatEvent | StreamEvent, now: datetime, *, key: str
) -> OutboxEvent:
    return OutboxEvent(
        topic=topic,
        key=key,
        event_type=event.event_type.value,
        payload=msgspec.json.encode(event),
        event_id=event.event_id,
        created_at=now,
    )
