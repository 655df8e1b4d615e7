"""What a page does with one message: copy its source, have it written again."""

from __future__ import annotations

from typing import Final

from litestar import get, post
from litestar.response import Response

from app.domain.errors import GenerationInProgress, NotRegenerable
from app.web.auth import caller_of
from app.web.bodies import read_form
from app.web.forwarding import is_htmx, page, see_other
from app.web.fragments import activity_of
from app.web.limits import ASKS
from app.web.parameters import message_id_of
from app.web.parts import parts_of
from app.web.problems import AnyRequest


@get("/chat/messages/{message_id:str}/text")
async def text(request: AnyRequest) -> Response[bytes]:
    """Give the Markdown that a message was written in."""
    message_id = message_id_of(request.path_params["message_id"])
    message = await parts_of(request).chat.message(caller_of(request), message_id)
    # By its bytes: a response of the framework would not keep a lone carriage return apart.
    return Response(message.content.encode(), media_type="text/plain")


@post("/chat/messages/{message_id:str}/regenerate", opt=ASKS)
async def regenerate(request: AnyRequest) -> Response[bytes]:
    """Have the latest answer written again, or with ``keep`` gone on with; the stream brings it."""
    parts, caller = parts_of(request), caller_of(request)
    async with parts.limits.question(request) as admit:
        message_id = message_id_of(request.path_params["message_id"])
        fields = await read_form(request)
        await admit("")
    try:
        asked = await parts.chat.regenerate(caller, message_id, keep="keep" in fields)
    except (GenerationInProgress, NotRegenerable):
        if is_htmx(request):
            raise
        # Somebody was faster, or asked something else since: the page says what is.
        message = await parts.chat.message(caller, message_id)
        return see_other(f"/chat/{message.session_id}")
    if is_htmx(request):
        answer = asked.assistant_message
        return page(
            parts,
            "regenerated.html",
            message=answer,
            session_id=asked.session_id,
            activity=activity_of((answer,)),
        )
    return see_other(f"/chat/{asked.session_id}")


ROUTES: Final = [text, regenerate]
