"""The pages: ask, read along, stop. They work without JavaScript; HTMX makes them live."""

from __future__ import annotations

import uuid
from typing import Final

from litestar import get, post
from litestar.response import Response

from app.chat.reading import MessagePage
from app.domain.errors import ChatError, ValidationFailed
from app.domain.messages import Status, check_session_id
from app.web.auth import caller_of
from app.web.bodies import read_body, read_form
from app.web.conversations import deleted_of
from app.web.exchange import exchange_of
from app.web.forwarding import is_htmx, page, redirect, see_other
from app.web.fragments import Activity, activity_of
from app.web.limits import ASKS
from app.web.listing import listing_of
from app.web.parameters import cursor_of, message_id_of, query_value
from app.web.parts import parts_of
from app.web.problems import AnyRequest, Problem, prefers_html, problem_of
from app.web.sessions import session_id_of

MESSAGES_SHOWN: Final = 100
_FIELDS: Final = frozenset({"message", "session_id", "client_message_id", "model"})
_IDLE: Final = Activity(Status.COMPLETE)


@get("/")
async def home(request: AnyRequest) -> Response[bytes]:
    """Show the empty form and the recent conversations."""
    return await _home(request)


@get("/chat/{session_id:str}")
async def conversation(request: AnyRequest) -> Response[bytes]:
    """Show a conversation with the text so far, at the position where its stream goes on."""
    return await _conversation(request, session_id_of(request))


@post("/chat", opt=ASKS)
async def ask_first(request: AnyRequest) -> Response[bytes]:
    """Ask in a new conversation, whose id the form has: sent twice it is still one."""
    async with parts_of(request).limits.question(request) as admit:
        fields = await _question(request)
        try:
            await admit(fields["message"])
            session_id = check_session_id(fields["session_id"])
            await _ask(request, session_id, fields)
        except ChatError as error:
            if is_htmx(request) or not prefers_html(request):
                raise
            return await _home(request, fields=fields, problem=problem_of(error))
    return redirect(request, f"/chat/{session_id}")


@post("/chat/{session_id:str}/messages", opt=ASKS)
async def ask_next(request: AnyRequest) -> Response[bytes]:
    """Ask in this conversation; the stream brings the question and its answer."""
    async with parts_of(request).limits.question(request) as admit:
        session_id = session_id_of(request)
        fields = await _question(request)
        try:
            await admit(fields["message"])
            # A form must not make the conversation of a mistyped or deleted address.
            await parts_of(request).chat.session(caller_of(request), session_id)
            await _ask(request, session_id, fields)
        except ChatError as error:
            if is_htmx(request) or not prefers_html(request):
                raise
            return await _conversation(
                request, session_id, fields=fields, problem=problem_of(error)
            )
    if is_htmx(request):
        return page(parts_of(request), "asked.html", key=new_key())
    return see_other(f"/chat/{session_id}")


@post("/chat/messages/{message_id:str}/stop")
async def stop_answer(request: AnyRequest) -> Response[bytes]:
    """Stop an answer."""
    message_id = message_id_of(request.path_params["message_id"])
    fields = await read_form(request)
    await parts_of(request).chat.cancel(caller_of(request), message_id)
    return _stopped(request, fields.get("session_id", ""))


@post("/chat/{session_id:str}/stop")
async def stop_awaited(request: AnyRequest) -> Response[bytes]:
    """Stop what is awaited, before the page knows the id of the answer."""
    session_id = session_id_of(request)
    await read_body(request)
    chat, caller = parts_of(request).chat, caller_of(request)
    latest = (await chat.history(caller, session_id, 1)).items
    if latest and not latest[-1].is_complete:
        await chat.cancel(caller, latest[-1].message_id)
    return _stopped(request, session_id)


def new_key() -> str:
    """Make the key that lets a form be sent twice and taken once."""
    return uuid.uuid4().hex


async def _question(request: AnyRequest) -> dict[str, str]:
    """Read the composer's fields; forms send line ends as CRLF, which nobody typed."""
    fields = await read_form(request)
    unknown = fields.keys() - _FIELDS
    if unknown:
        raise ValidationFailed("the form has a field that is not known")
    fields = dict.fromkeys(_FIELDS, "") | fields
    fields["message"] = fields["message"].replace("\r\n", "\n")
    return fields


async def _ask(request: AnyRequest, session_id: str, fields: dict[str, str]) -> None:
    asked, _ = await parts_of(request).chat.ask(
        caller_of(request),
        text=fields["message"],
        session_id=session_id,
        client_message_id=fields["client_message_id"] or None,
        model=fields["model"] or None,
    )
    exchange_of(request.scope).note(
        session_id=session_id, message_id=asked.assistant_message.message_id
    )


def _stopped(request: AnyRequest, session_id: str) -> Response[bytes]:
    if is_htmx(request):
        return Response(b"", status_code=204)
    return see_other(f"/chat/{check_session_id(session_id)}" if session_id else "/")


async def _home(
    request: AnyRequest,
    *,
    fields: dict[str, str] | None = None,
    problem: Problem | None = None,
) -> Response[bytes]:
    return page(
        parts_of(request),
        "home.html",
        problem=problem,
        listing=await listing_of(request, None),
        deleted=await deleted_of(request),
        undo_seconds=parts_of(request).chat.deletion.undo_seconds,
        action="/chat",
        activity=_IDLE,
        autofocus=True,
        session_id=str(uuid.uuid4()),
        key=new_key(),
        model=parts_of(request).rendering.models.chosen((), fields["model"] if fields else ""),
        text=fields["message"] if fields else "",
    )


async def _conversation(
    request: AnyRequest,
    session_id: str,
    *,
    fields: dict[str, str] | None = None,
    problem: Problem | None = None,
) -> Response[bytes]:
    parts, caller = parts_of(request), caller_of(request)
    before = cursor_of(request, "before")
    session = await parts.chat.session(caller, session_id)
    shown = await _around(request, session_id) if before is None else None
    older = shown is not None or before is not None
    if shown is None:
        shown = await parts.chat.history(caller, session_id, MESSAGES_SHOWN, before)
    is_full = len(shown.items) == MESSAGES_SHOWN
    return page(
        parts,
        "conversation.html",
        problem=problem,
        listing=await listing_of(request, session_id),
        session=session,
        renaming=query_value(request, "rename") is not None,
        messages=shown.items,
        position=shown.position,
        older=older,
        earlier=shown.items[0].message_id if is_full else None,
        later=shown.items[-1].message_id if older and shown.items else None,
        action=f"/chat/{session_id}/messages",
        activity=activity_of(shown.items),
        autofocus=False,
        session_id=session_id,
        key=new_key(),
        model=parts.rendering.models.chosen(shown.items, fields["model"] if fields else ""),
        text=fields["message"] if fields else "",
    )


async def _around(request: AnyRequest, session_id: str) -> MessagePage | None:
    """Give the page that has the message of ``?around``; None where the newest one has it."""
    around = query_value(request, "around")
    if around is None:
        return None
    return await parts_of(request).chat.history_around(
        caller_of(request), session_id, message_id_of(around), MESSAGES_SHOWN
    )


ROUTES: Final = [home, conversation, ask_first, ask_next, stop_answer, stop_awaited]
