"""The records that leave the system, field by field: others build on their names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from app.domain.messages import AnswerError, Message, Role, Session, Status, Usage
from app.domain.outbox import OutboxEvent
from app.events.envelope import EventBuilder

NOW = datetime(2026, 1, 31, 9, 5, 0, 123_456, tzinfo=UTC)
BUILDER = EventBuilder("node-1", lambda: "event-1")
SESSION = Session(session_id="s-1", title="Läuft 🧵", created_at="c", updated_at="u")
CHAT = {
    "eventId": "event-1",
    "eventVersion": 1,
    "timestamp": "2026-01-31T09:05:00.123Z",
    "sessionId": "s-1",
    "userId": "ada",
    "messageId": None,
    "conversationId": "s-1",
    "role": None,
    "content": None,
}
STREAM = {
    "eventId": "event-1",
    "eventVersion": 1,
    "timestamp": "2026-01-31T09:05:00.123Z",
    "sessionId": "s-1",
    "messageId": "m-1",
    "attempt": 2,
    "totalChunks": None,
    "contentLength": None,
    "durationMs": None,
    "nodeId": "node-1",
    "model": "demo",
    "errorCode": None,
    "errorDetail": None,
    "promptTokens": None,
    "completionTokens": None,
}


def answer(
    status: Status, *, error: AnswerError | None = None, usage: Usage | None = None
) -> Message:
    return Message(
        message_id="m-1",
        session_id="s-1",
        role=Role.ASSISTANT,
        content="e\u0301 🧵\r\n",
        status=status,
        is_complete=status.is_final,
        attempt=2,
        model="demo",
        created_at="c",
        error=error,
        usage=usage,
    )


def record(event: OutboxEvent) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(event.payload)
    return decoded


@pytest.mark.parametrize(
    ("build", "event_type"),
    [
        (BUILDER.session_started, "SESSION_STARTED"),
        (BUILDER.session_renamed, "SESSION_RENAMED"),
        (BUILDER.session_deleted, "SESSION_DELETED"),
    ],
)
def test_what_happens_to_a_session(build: Any, event_type: str) -> None:
    event: OutboxEvent = build(SESSION, user_id="ada", now=NOW)

    assert event[:3] == ("chat-events", "s-1", event_type)
    assert (event.event_id, event.created_at) == ("event-1", NOW)
    assert record(event) == CHAT | {
        "eventType": event_type,
        "metadata": {"nodeId": "node-1", "duration": None, "title": "Läuft 🧵"},
    }


def test_a_question() -> None:
    question = Message(
        message_id="m-0",
        session_id="s-1",
        role=Role.USER,
        content="How?",
        status=Status.COMPLETE,
        is_complete=True,
        attempt=0,
        model=None,
        created_at="c",
    )

    event = BUILDER.chat_message(question, user_id="ada", now=NOW)

    assert event[:3] == ("chat-events", "s-1", "CHAT_MESSAGE")
    assert record(event) == CHAT | {
        "eventType": "CHAT_MESSAGE",
        "messageId": "m-0",
        "role": "user",
        "content": "How?",
        "metadata": {
            "nodeId": "node-1",
            "duration": None,
            "status": "complete",
            "attempt": 0,
            "model": None,
            "inReplyTo": None,
        },
    }


def test_an_answer() -> None:
    event = BUILDER.chat_message(
        answer(Status.CANCELLED), user_id="ada", now=NOW, in_reply_to="m-0", duration_ms=42
    )

    assert record(event) == CHAT | {
        "eventType": "CHAT_MESSAGE",
        "messageId": "m-1",
        "role": "assistant",
        "content": "e\u0301 🧵\r\n",
        "metadata": {
            "nodeId": "node-1",
            "duration": 42,
            "status": "cancelled",
            "attempt": 2,
            "model": "demo",
            "inReplyTo": "m-0",
        },
    }


def test_an_attempt_begins() -> None:
    started = BUILDER.stream_started(answer(Status.STREAMING), now=NOW)
    recovered = BUILDER.stream_recovered(answer(Status.STREAMING), now=NOW)

    assert started[:3] == ("stream-events", "s-1", "STREAM_STARTED")
    assert record(started) == STREAM | {"eventType": "STREAM_STARTED"}
    assert recovered[:3] == ("stream-events", "s-1", "STREAM_RECOVERED")
    assert record(recovered) == STREAM | {"eventType": "STREAM_RECOVERED"}


@pytest.mark.parametrize(
    ("status", "event_type"),
    [
        (Status.COMPLETE, "STREAM_COMPLETED"),
        (Status.CANCELLED, "STREAM_CANCELLED"),
        (Status.FAILED, "STREAM_FAILED"),
    ],
)
def test_an_answer_ends(status: Status, event_type: str) -> None:
    message = answer(status, error=AnswerError("model_error", "It broke."), usage=Usage(7, 3))

    event = BUILDER.stream_ended(message, total_chunks=4, duration_ms=1500, now=NOW)

    assert event[:3] == ("stream-events", "s-1", event_type)
    assert record(event) == STREAM | {
        "eventType": event_type,
        "totalChunks": 4,
        # Code points: two for the accented letter, one for the spool.
        "contentLength": 6,
        "durationMs": 1500,
        "errorCode": "model_error",
        "errorDetail": "It broke.",
        "promptTokens": 7,
        "completionTokens": 3,
    }


@pytest.mark.parametrize("status", [Status.QUEUED, Status.STREAMING])
def test_an_answer_that_goes_on_has_not_ended(status: Status) -> None:
    with pytest.raises(ValueError, match="has not ended"):
        BUILDER.stream_ended(answer(status), total_chunks=4, duration_ms=1500, now=NOW)


def test_payloads_are_one_line_of_json() -> None:
    event = BUILDER.chat_message(answer(Status.COMPLETE), user_id="ada", now=NOW)

    assert b"\n" not in event.payload
    assert b"\r" not in event.payload


def test_a_sign_in_belongs_to_a_user_and_to_no_session() -> None:
    event = BUILDER.user_signed_in(user_id="ada", sign_in_id="i-1", via="password", now=NOW)
    assert (event.topic, event.key, event.event_type) == ("chat-events", "ada", "USER_SIGNED_IN")
    assert msgspec.json.decode(event.payload) == CHAT | {
        "eventType": "USER_SIGNED_IN",
        "sessionId": None,
        "conversationId": None,
        "metadata": {"nodeId": "node-1", "duration": None, "signInId": "i-1", "via": "password"},
    }
