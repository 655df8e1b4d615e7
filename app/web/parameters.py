"""What requests say beside their body: paths, queries and headers, checked before use."""

from __future__ import annotations

import math
import re
from typing import Final

from app.domain.errors import InvalidCursor, NotFound, ValidationFailed
from app.domain.messages import check_client_message_id
from app.domain.position import Position
from app.web.problems import AnyRequest, InvalidFields

LIMIT_MAX: Final = 100
LIMIT_DEFAULT: Final = 50
WAIT_MAX_SECONDS: Final = 30.0
_CURSOR_MAX_CHARACTERS: Final = 512
_MESSAGE_ID = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)
_LIMIT = re.compile(r"[0-9]{1,3}", re.ASCII)
_WAIT = re.compile(r"[0-9]{1,3}(\.[0-9]{0,32})?(e-?[0-9]{1,3})?", re.ASCII | re.IGNORECASE)


def query_value(request: AnyRequest, name: str) -> str | None:
    """Give a query parameter; raise ValidationFailed where it is given twice."""
    values = request.query_params.getall(name, [])
    if len(values) > 1:
        raise InvalidFields(name, f"{name} is given more than once")
    return values[0] if values else None


def limit_of(request: AnyRequest, *, default: int = LIMIT_DEFAULT) -> int:
    """Give ``?limit``: 1 to 100."""
    written = query_value(request, "limit")
    if written is None:
        return default
    if _LIMIT.fullmatch(written) is None or not 1 <= int(written) <= LIMIT_MAX:
        raise InvalidFields("limit", f"limit must be a whole number from 1 to {LIMIT_MAX}")
    return int(written)


def cursor_of(request: AnyRequest, name: str) -> str | None:
    """Give a page cursor, which only its maker can judge further; InvalidCursor for rubbish."""
    cursor = query_value(request, name)
    if cursor is None:
        return None
    if not 0 < len(cursor) <= _CURSOR_MAX_CHARACTERS or not cursor.isascii() or "\x00" in cursor:
        raise InvalidCursor
    return cursor


def wait_of(request: AnyRequest) -> float:
    """Give ``?wait``: 0 to 30 seconds, 0 where it is absent."""
    written = query_value(request, "wait")
    if written is None:
        return 0.0
    seconds = float(written) if _WAIT.fullmatch(written) else math.inf
    if seconds > WAIT_MAX_SECONDS:
        raise InvalidFields("wait", f"wait must be a number from 0 to {WAIT_MAX_SECONDS:g}")
    return seconds


def message_id_of(written: str) -> str:
    """Give a message id from a path; NotFound for what cannot be one (a NUL, for instance)."""
    if _MESSAGE_ID.fullmatch(written) is None:
        raise NotFound
    return written


def position_of(request: AnyRequest) -> Position | None:
    """Give the position to resume from: the ``Last-Event-ID`` header, else the query.

    The header wins: a client that reconnects sends the URL it began with once more, and the
    newer position in the header. None where neither is given. Raises InvalidPosition for what is
    malformed, the empty string included: a client that has lost its position says nothing.
    """
    headers = request.headers.getall("last-event-id", [])
    if len(headers) > 1:
        raise ValidationFailed("Last-Event-ID is given more than once")
    written = headers[0] if headers else query_value(request, "last_event_id")
    return None if written is None else Position.parse(written)


def idempotency_key_of(request: AnyRequest, in_body: str | None) -> str | None:
    """Give the key that makes a question safe to send again: from the header or the body."""
    in_header = request.headers.get("idempotency-key")
    if in_header is None:
        return in_body
    if in_body is not None and in_body != in_header:
        raise InvalidFields(
            "client_message_id", "client_message_id and Idempotency-Key must not differ"
        )
    return check_client_message_id(in_header)
