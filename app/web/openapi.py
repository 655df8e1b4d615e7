"""The OpenAPI 3.1 document, written out.

Schemas come from the structs that the handlers read and write. A test holds the paths and methods
here against the routes that are registered.
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.chat.reading import MessagePage
from app.chat.service import Asked
from app.domain.errors import ChatError
from app.domain.events import Chunk, EventType, SessionChanged, Start, Thought
from app.domain.frames import Bye, History, Welcome
from app.domain.messages import (
    CLIENT_MESSAGE_ID_MAX_CHARACTERS,
    MESSAGE_MAX_CHARACTERS,
    TITLE_MAX_CHARACTERS,
    Message,
    Session,
)
from app.web.forms import (
    AccessToken,
    Credentials,
    NewSession,
    Question,
    Regeneration,
    SessionList,
    SessionTitle,
    Stopped,
)
from app.web.health import Health, ProbeAnswer
from app.web.openapi_paths import POSITION, SESSION_ID, Document, object_of, paths, ref
from app.web.sse import StreamError
from app.web.tickets import Ticket

_STRUCTS: Final = [
    AccessToken,
    Asked,
    Bye,
    Chunk,
    Credentials,
    Health,
    History,
    Message,
    MessagePage,
    NewSession,
    ProbeAnswer,
    Question,
    Regeneration,
    Session,
    SessionChanged,
    SessionList,
    SessionTitle,
    Start,
    Stopped,
    StreamError,
    Thought,
    Ticket,
    Welcome,
]


def openapi_document(version: str) -> Document:
    """Make the document for this version of the program."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Throughline",
            "version": version,
            "summary": "A chat whose answers survive reloads, reconnects and crashes.",
            "description": (
                "Errors are problem documents (RFC 9457) with a stable `code`. Every response "
                "carries `X-Request-ID`. HEAD is answered wherever GET is. A session or message "
                "of another user answers 404."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}],
        "paths": dict(paths()),
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": (
                        "In development a request without credentials acts as the user `dev`."
                    ),
                }
            },
            "schemas": _schemas(),
        },
    }


def known_problems() -> list[type[ChatError]]:
    """Give every problem that a route may answer with, by its code."""
    found: dict[str, type[ChatError]] = {}
    waiting: list[type[ChatError]] = [ChatError]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if "code" in vars(kind) and kind is not ChatError:
            found[kind.code] = kind
    return [found[code] for code in sorted(found)]


def _schemas() -> Document:
    _, components = msgspec.json.schema_components(
        _STRUCTS, ref_template="#/components/schemas/{name}"
    )
    for (schema, field), said in _SAID_OF_FIELDS.items():
        place = components[schema]["properties"][field]
        # What may be null is said of the string that it may be, too.
        (place["anyOf"][0] if "anyOf" in place else place).update(said)
    return components | {
        "ModelList": object_of(
            items={
                "type": "array",
                "items": object_of(
                    id={"type": "string"}, name={"type": "string"}, kind={"type": "string"}
                ),
            },
            default={"type": "string"},
        ),
        "PollAnswer": object_of(
            events={
                "type": "array",
                "items": object_of(
                    id=POSITION,
                    type={"enum": [kind.value for kind in EventType]},
                    data={
                        "anyOf": [
                            ref(kind)
                            for kind in ("Message", "Start", "Chunk", "Thought", "SessionChanged")
                        ]
                    },
                ),
            },
            position=POSITION,
            history={"anyOf": [ref("History"), {"type": "null"}]},
        ),
        "Problem": _PROBLEM,
    }


def _text(maximum: int) -> Document:
    """Describe a text that is trimmed: something must be left, and it must be storable."""
    return {
        "description": f"1 to {maximum} characters after trimming",
        "minLength": 1,
        "maxLength": maximum,
        "pattern": r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$",
    }


_SAID_OF_FIELDS: Final = {
    ("Question", "message"): _text(MESSAGE_MAX_CHARACTERS),
    ("Question", "session_id"): SESSION_ID,
    ("Question", "client_message_id"): _text(CLIENT_MESSAGE_ID_MAX_CHARACTERS),
    ("NewSession", "session_id"): SESSION_ID,
    ("NewSession", "title"): _text(TITLE_MAX_CHARACTERS),
    ("SessionTitle", "title"): _text(TITLE_MAX_CHARACTERS),
}
"""What the handlers check beyond the type; ``app.domain.messages`` does it."""

_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457; some codes come with members of their own.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
        "request_id": {"type": "string"},
        "message_id": {
            "type": "string",
            "description": "The unfinished answer, with `generation_in_progress`",
        },
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["field", "detail"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "code", "instance", "request_id"],
}
