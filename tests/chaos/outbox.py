"""What must be on record once a run is over: every question and every end, each once."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import messages
from app.domain.messages import Role, Status
from tests.chaos.report import Report
from tests.support.conversations import told

_ENDS = {"STREAM_COMPLETED", "STREAM_CANCELLED", "STREAM_FAILED"}


async def check_outbox(url: str, report: Report) -> None:
    """Compare the stored messages with the outbox's records."""
    database = Database(url)
    try:
        records = await told(database)
        async with database.read() as connection:
            stored = list(
                await connection.execute(
                    select(messages.c.id, messages.c.role, messages.c.status, messages.c.content)
                )
            )
    finally:
        await database.close()
    report.events.update(record["eventType"] for record in records)
    doubled = [
        key for key, count in Counter(one["eventId"] for one in records).items() if count > 1
    ]
    report.breaches.extend(f"event {key} is on record twice" for key in doubled)
    said = Counter(one["messageId"] for one in records if one["eventType"] == "CHAT_MESSAGE")
    ended = Counter(one["messageId"] for one in records if one["eventType"] in _ENDS)
    for message_id, role, status, content in stored:
        if role == Role.USER and said[message_id] != 1:
            report.breaches.append(f"question {message_id} is on record {said[message_id]} times")
        if role == Role.ASSISTANT and said[message_id] > 1:
            report.breaches.append(f"answer {message_id} is on record {said[message_id]} times")
        if role == Role.ASSISTANT and Status(status).is_final and ended[message_id] != 1:
            report.breaches.append(
                f"the end of {message_id} ({status}, {len(content)} characters)"
                f" is on record {ended[message_id]} times"
            )
