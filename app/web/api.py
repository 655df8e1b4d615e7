"""REST: ask, stop, ask again, which models there are."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import get, post
from litestar.response import Response

from app.domain.errors import Forbidden
from app.domain.messages import check_session_id
from app.web.auth import caller_of
from app.web.bodies import read_body, read_json
from app.web.exchange import exchange_of
from app.web.forms import Question, Regeneration, Stopped
from app.web.limits import ASKS
from app.web.parameters import idempotency_key_of, message_id_of
from app.web.parts import parts_of
from app.web.problems import AnyRequest

_ACCEPTED: Final = 202
_OK: Final = 200


def json_response(
    content: object, *, status_code: int = _OK, headers: dict[str, str] | None = None
) -> Response[bytes]:
    """Encode a struct as the body of a response."""
    return Response(
        msgspec.json.encode(content),
        status_code=status_code,
        headers=headers,
        media_type="application/json",
    )


@post("/api/chat", opt=ASKS)
async def ask(request: AnyRequest) -> Response[bytes]:
    """Accept a question: 202, or 200 with what was begun before where the key is a repeat."""
    caller = caller_of(request)
    async with parts_of(request).limits.question(request) as admit:
        question = await read_json(request, Question)
        if question.user_id is not None and question.user_id != caller.user_id:
            raise Forbidden("user_id is not the caller")
        if question.session_id is not None:
            check_session_id(question.session_id)
        await admit(question.message)
    asked, is_repeat = await parts_of(request).chat.ask(
        caller,
        text=question.message,
        session_id=question.session_id,
        client_message_id=idempotency_key_of(request, question.client_message_id),
        model=question.model,
    )
    exchange_of(request.scope).note(
        session_id=asked.session_id, message_id=asked.assistant_message.message_id
    )
    return json_response(asked, status_code=_OK if is_repeat else _ACCEPTED)


@post("/api/chat/{message_id:str}/cancel")
async def cancel(request: AnyRequest) -> Response[bytes]:
    """Stop an answer: 202, or 200 with the final state where it had ended."""
    message_id = message_id_of(request.path_params["message_id"])
    await read_body(request)
    status, is_accepted = await parts_of(request).chat.cancel(caller_of(request), message_id)
    return json_response(Stopped(message_id, status), status_code=_ACCEPTED if is_accepted else _OK)


@post("/api/chat/{message_id:str}/regenerate", opt=ASKS)
async def regenerate(request: AnyRequest) -> Response[bytes]:
    """Have a question answered once more, in place of its latest answer."""
    async with parts_of(request).limits.question(request) as admit:
        message_id = message_id_of(request.path_params["message_id"])
        wanted = await read_json(request, Regeneration, empty=Regeneration())
        await admit("")
    asked = await parts_of(request).chat.regenerate(
        caller_of(request), message_id, wanted.model, keep=wanted.keep
    )
    exchange_of(request.scope).note(session_id=asked.session_id)
    return json_response(asked, status_code=_ACCEPTED)


@get("/api/models")
async def models(request: AnyRequest) -> Response[bytes]:
    """List the models that a question may name."""
    return json_response(parts_of(request).chat.models())


ROUTES: Final = [ask, cancel, regenerate, models]
