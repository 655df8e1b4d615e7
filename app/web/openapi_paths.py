"""The operations of the OpenAPI document: what each route takes and all that it may answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from app.domain import errors
from app.domain.errors import ChatError
from app.web.bodies import BODY_MAX_BYTES
from app.web.parameters import LIMIT_DEFAULT, LIMIT_MAX, WAIT_MAX_SECONDS
from app.web.problems import PROBLEM_MEDIA_TYPE, PayloadTooLarge, UnsupportedMediaType

Document = dict[str, Any]

_JSON: Final = "application/json"
_READ: Final = (errors.Unauthenticated, errors.RateLimited, errors.Unavailable)
_WRITE: Final = (*_READ, errors.Forbidden, errors.ValidationFailed)
_BODY: Final = (*_WRITE, PayloadTooLarge, UnsupportedMediaType)
POSITION: Final = {
    "type": "string",
    "pattern": "^(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})$",
}
SESSION_ID: Final = {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"}
_CURSOR: Final = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,512}$"}


def object_of(**properties: Any) -> Document:
    return {"type": "object", "properties": properties, "required": list(properties)}


def ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: str | None = None, media_type: str = _JSON) -> Document:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {media_type: {"schema": ref(schema)}}}


def _problems(kinds: tuple[type[ChatError], ...]) -> Document:
    """Describe problems by status; several codes may share one."""
    by_status: dict[int, list[type[ChatError]]] = {}
    for kind in kinds:
        by_status.setdefault(kind.http_status, []).append(kind)
    answers = {}
    for status, shared in sorted(by_status.items()):
        answer = _answer(
            "; ".join(f"`{kind.code}`: {kind.title}" for kind in shared),
            "Problem",
            PROBLEM_MEDIA_TYPE,
        )
        if any(kind.retryable for kind in shared):
            answer["headers"] = {
                "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}
            }
        answers[str(status)] = answer
    return answers


def _operation(
    summary: str,
    answers: Document,
    problems: tuple[type[ChatError], ...] = (),
    *,
    parameters: tuple[Document, ...] = (),
    body: str | None = None,
    is_body_required: bool = True,
    is_public: bool = False,
) -> Document:
    operation: Document = {"summary": summary, "responses": answers | _problems(problems)}
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = {
            "required": is_body_required,
            "description": f"At most {BODY_MAX_BYTES} bytes; unknown fields are refused",
            "content": {_JSON: {"schema": ref(body)}},
        }
    if is_public:
        operation["security"] = []
    return operation


def _parameter(name: str, where: str, description: str, schema: Document) -> Document:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema,
    }


_SESSION_ID: Final = _parameter("session_id", "path", "The session", SESSION_ID)
_MESSAGE_ID: Final = _parameter("message_id", "path", "The answer", {"type": "string"})
_LIMIT: Final = _parameter(
    "limit",
    "query",
    "How many at most",
    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
)


def paths() -> Iterator[tuple[str, Document]]:
    yield from _chat_paths()
    yield from _session_paths()
    yield "/api/sessions/{session_id}/events", {"parameters": [_SESSION_ID], "get": _events()}
    yield from _export_paths()
    yield from _sign_in_paths()
    yield from _operator_paths()


def _chat_paths() -> Iterator[tuple[str, Document]]:
    yield (
        "/api/chat",
        {
            "post": _operation(
                "Ask a question",
                {
                    "202": _answer("Accepted: question and answer are committed", "Asked"),
                    "200": _answer("Accepted before under the same key", "Asked"),
                },
                (
                    *_BODY,
                    errors.UnknownModel,
                    errors.NotFound,
                    errors.GenerationInProgress,
                    errors.Overloaded,
                ),
                parameters=(
                    _parameter(
                        "Idempotency-Key",
                        "header",
                        "The same as `client_message_id`",
                        {"type": "string", "minLength": 1, "maxLength": 128},
                    ),
                ),
                body="Question",
            )
        },
    )
    yield (
        "/api/chat/{message_id}/cancel",
        {
            "parameters": [_MESSAGE_ID],
            "post": _operation(
                "Stop an answer",
                {
                    "202": _answer("The stop is committed", "Stopped"),
                    "200": _answer("It had ended already", "Stopped"),
                },
                (*_READ, errors.Forbidden, PayloadTooLarge, errors.NotFound),
            ),
        },
    )
    yield (
        "/api/chat/{message_id}/regenerate",
        {
            "parameters": [_MESSAGE_ID],
            "post": _operation(
                "Have the latest question answered once more",
                {"202": _answer("A new answer takes the place of the latest one", "Asked")},
                (
                    *_BODY,
                    errors.UnknownModel,
                    errors.NotFound,
                    errors.GenerationInProgress,
                    errors.NotRegenerable,
                    errors.Overloaded,
                ),
                body="Regeneration",
                is_body_required=False,
            ),
        },
    )
    yield (
        "/api/models",
        {"get": _operation("List the models", {"200": _answer("The models", "ModelList")}, _READ)},
    )


def _session_paths() -> Iterator[tuple[str, Document]]:
    missing = (*_READ, errors.ValidationFailed, errors.NotFound)
    yield (
        "/api/sessions",
        {
            "get": _operation(
                "List one's sessions, newest activity first",
                {"200": _answer("A page of sessions", "SessionList")},
                (*_READ, errors.ValidationFailed, errors.InvalidCursor),
                parameters=(
                    _LIMIT,
                    _parameter("cursor", "query", "`next_cursor` before", _CURSOR),
                ),
            ),
            "post": _operation(
                "Make an empty session",
                {"201": _answer("The session", "Session")},
                (*_BODY, errors.NotFound, errors.SessionExists),
                body="NewSession",
                is_body_required=False,
            ),
        },
    )
    yield (
        "/api/sessions/{session_id}",
        {
            "parameters": [_SESSION_ID],
            "get": _operation(
                "Show a session", {"200": _answer("The session", "Session")}, missing
            ),
            "patch": _operation(
                "Rename a session",
                {"200": _answer("The session", "Session")},
                (*_BODY, errors.NotFound),
                body="SessionTitle",
            ),
            "delete": _operation(
                "Delete a session with all that was said in it",
                {"204": _answer("It is gone")},
                (*_WRITE, errors.NotFound),
            ),
        },
    )
    yield (
        "/api/sessions/{session_id}/messages",
        {
            "parameters": [_SESSION_ID],
            "get": _operation(
                "List messages, oldest first, with an unfinished answer's text so far",
                {"200": _answer("Messages, and the position they stand at", "MessagePage")},
                (*missing, errors.InvalidCursor),
                parameters=(
                    _LIMIT,
                    _parameter("before", "query", "Older than this message", _CURSOR),
                ),
            ),
        },
    )


def _events() -> Document:
    return _operation(
        "Follow a session's log by server-sent events, or by long poll",
        {
            "200": {
                "description": (
                    "Server-sent events: `welcome`, then `history` or what was missed, then live. "
                    "Events of the log (`message`, `start`, `chunk`, `reasoning`, `session`) carry "
                    "their position as `id`; `history` carries the one it stands at. `error` and "
                    "`bye` end a stream. With long poll, what there is after the position."
                ),
                "content": {
                    "text/event-stream": {"schema": {"type": "string"}},
                    _JSON: {"schema": ref("PollAnswer")},
                },
            },
            "204": _answer("The session was deleted: do not come back"),
        },
        (
            *_READ,
            errors.ValidationFailed,
            errors.InvalidPosition,
            errors.NotFound,
            errors.TooManyConnections,
        ),
        parameters=(
            _parameter("Last-Event-ID", "header", "Resume after this position", POSITION),
            _parameter("last_event_id", "query", "The same; the header wins over it", POSITION),
            _parameter(
                "ticket",
                "query",
                "From `POST /auth/ticket`, in place of a credential; used up by one request",
                {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
            ),
            _parameter(
                "transport",
                "query",
                "Without it `Accept` decides: `application/json` asks for long poll",
                {"type": "string", "enum": ["sse", "poll"]},
            ),
            _parameter(
                "wait",
                "query",
                "Seconds that a long poll may wait for something new",
                {"type": "number", "minimum": 0, "maximum": WAIT_MAX_SECONDS, "default": 0},
            ),
            _parameter(
                "content",
                "query",
                "Chunks are sent as what they add",
                {"type": "string", "enum": ["delta", "full"]},
            ),
        ),
    )


def _export_paths() -> Iterator[tuple[str, Document]]:
    yield (
        "/api/account/export",
        {
            "get": _operation(
                "Download all that the caller has",
                {
                    "200": {
                        "description": (
                            "A JSON object in each line, with its `type`: `account`, then each "
                            "`session` before its `message`s, then `end`. A file without that was "
                            "cut short"
                        ),
                        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
                    }
                },
                (*_READ, errors.TooManyConnections),
            )
        },
    )


def _sign_in_paths() -> Iterator[tuple[str, Document]]:
    yield (
        "/auth/token",
        {
            "post": _operation(
                "Get a token for a name and a password",
                {"200": _answer("The token", "AccessToken")},
                (
                    errors.ValidationFailed,
                    errors.SignInFailed,
                    errors.RateLimited,
                    errors.Overloaded,
                    errors.Unavailable,
                    PayloadTooLarge,
                    UnsupportedMediaType,
                ),
                body="Credentials",
                is_public=True,
            )
        },
    )
    yield (
        "/auth/ticket",
        {
            "post": _operation(
                "Get a ticket for the address of one stream, poll or WebSocket",
                {"200": _answer("The ticket: it works once, for half a minute", "Ticket")},
                (*_READ, errors.Forbidden, errors.CsrfFailed),
            )
        },
    )


def _operator_paths() -> Iterator[tuple[str, Document]]:
    for path, summary, schema in (
        ("/health", "Say what works", "Health"),
        ("/health/live", "Say that the process answers", "ProbeAnswer"),
        ("/health/ready", "Say whether requests should be sent here", "ProbeAnswer"),
    ):
        answers = {"200": _answer("It does", schema)}
        if path != "/health/live":
            answers["503"] = _answer("It does not", schema)
        yield path, {"get": _operation(summary, answers, is_public=True)}
    for path, summary, media_types in (
        ("/metrics", "Prometheus metrics", ("text/plain",)),
        ("/schema", "This description, as a page or as JSON", ("text/html", _JSON)),
        ("/schema/openapi.json", "This description", (_JSON,)),
    ):
        content = {
            media_type: {"schema": {"type": "string" if media_type != _JSON else "object"}}
            for media_type in media_types
        }
        answers = {"200": {"description": summary, "content": content}}
        yield path, {"get": _operation(summary, answers, is_public=True)}
