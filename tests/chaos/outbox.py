"""What must be on record once a run is over: every question and every end, each once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import messages
from app.domain.messages import Role, Status
from tests.chaos.report import Breach, Report
from tests.support.conversations import told

_BEGINNINGS = {"STREAM_STARTED", "STREAM_RECOVERED"}
_ENDS = {"STREAM_COMPLETED", "STREAM_CANCELLED", "STREAM_FAILED"}


class Stored(NamedTuple):
    """A message as the database has it."""

    message_id: str
    session_id: str
    role: str
    status: str
    content: str
    attempt: int


async def check_outbox(url: str, report: Report) -> None:
    """Compare what is stored with the outbox's records, and with what was shown."""
    database = Database(url)
    table = messages.c
    columns = (table.id, table.session_id, table.role, table.status, table.content, table.attempt)
    try:
        records = await told(database)
        async with database.read() as connection:
            stored = [Stored(*row) for row in await connection.execute(select(*columns))]
    finally:
        await database.close()
    check_records(records, stored, report)
    check_shown(stored, report)


def check_records(
    records: Sequence[dict[str, Any]], stored: Iterable[Stored], report: Report
) -> None:
    """Find events that are missing, or there twice."""
    report.events.update(record["eventType"] for record in records)
    for event_id, count in Counter(record["eventId"] for record in records).items():
        _once(report, f"the event {event_id}", count)
    of_message: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        of_message[record.get("messageId") or record["sessionId"]].append(record)
    sessions = set()
    for message in stored:
        found = of_message[message.message_id]
        said = [one for one in found if one["eventType"] == "CHAT_MESSAGE"]
        if message.role == Role.USER:
            sessions.add(message.session_id)
            _once(report, f"the question {message.message_id}", len(said))
            continue
        what = f"of {message.message_id} ({message.status}, {len(message.content)} characters)"
        begun = Counter(one["attempt"] for one in found if one["eventType"] in _BEGINNINGS)
        for attempt in range(1, message.attempt + 1):
            _once(report, f"the beginning of attempt {attempt} {what}", begun[attempt])
        if Status(message.status).is_final:
            ends = [one for one in found if one["eventType"] in _ENDS]
            _once(report, f"the end {what}", len(ends))
            _once(report, f"the text {what}", len(said))
            if len(said) == 1 and said[0]["content"] != message.content:
                report.breach(Breach.EVENT_MISSING, f"the text {what} is on record as another")
    for session_id in sessions:
        _once(
            report,
            f"the beginning of {session_id}",
            sum(one["eventType"] == "SESSION_STARTED" for one in of_message[session_id]),
        )


def check_shown(stored: Iterable[Stored], report: Report) -> None:
    """Find answers without an end, and ends that their readers saw otherwise."""
    for message in stored:
        if message.role != Role.ASSISTANT:
            continue
        name, shown = message.message_id, report.finals.get(message.message_id)
        if not Status(message.status).is_final:
            report.breach(Breach.MISSED_END, f"{name} is {message.status} after all is over")
        elif shown is not None and shown != (message.status, message.content):
            report.breach(Breach.LOST, f"{name} is stored otherwise than it was shown")


def _once(report: Report, what: str, count: int) -> None:
    if count == 0:
        report.breach(Breach.EVENT_MISSING, f"{what} is not on record")
    elif count > 1:
        report.breach(Breach.EVENT_DOUBLED, f"{what} is on record {count} times")
