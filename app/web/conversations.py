"""The side bar and what it does to conversations: list, search, rename, delete and take it back."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from litestar import get, post
from litestar.response import Response

from app.domain.errors import ValidationFailed
from app.domain.messages import Session
from app.web.auth import caller_of
from app.web.bodies import read_body, read_form
from app.web.forwarding import is_htmx, page, redirect, see_other
from app.web.listing import current_of, listing_of
from app.web.parameters import query_value
from app.web.parts import parts_of
from app.web.problems import AnyRequest
from app.web.sessions import session_id_of


@get("/conversations")
async def conversations(request: AnyRequest) -> Response[bytes]:
    """Give the list of the side bar, or what ``?q`` finds, as a part of a page."""
    listing = await listing_of(request, current_of(request))
    return page(parts_of(request), "listed.html", listing=listing)


@post("/chat/{session_id:str}/rename")
async def rename(request: AnyRequest) -> Response[bytes]:
    """Give a conversation another title; its stream tells every other page."""
    session_id = session_id_of(request)
    fields = await read_form(request)
    if fields.keys() != {"title"}:
        raise ValidationFailed("the form has one field, title")
    parts = parts_of(request)
    session = await parts.chat.rename_session(caller_of(request), session_id, fields["title"])
    if is_htmx(request):
        return page(parts, "renamed.html", session=session)
    return see_other(f"/chat/{session_id}")


@post("/chat/{session_id:str}/delete")
async def delete(request: AnyRequest) -> Response[bytes]:
    """Delete a conversation, and offer to take that back for a while."""
    session_id = session_id_of(request)
    await read_body(request)
    await parts_of(request).chat.deletion.put_away(caller_of(request), session_id)
    if is_htmx(request) and not _is_shown(request, session_id):
        return page(
            parts_of(request),
            "deleted.html",
            deleted=await restorable(request, session_id),
            undo_seconds=parts_of(request).chat.deletion.undo_seconds,
        )
    return redirect(request, f"/?deleted={session_id}")


@post("/chat/{session_id:str}/restore")
async def restore(request: AnyRequest) -> Response[bytes]:
    """Take a deletion back."""
    session_id = session_id_of(request)
    await read_body(request)
    await parts_of(request).chat.deletion.restore(caller_of(request), session_id)
    return redirect(request, f"/chat/{session_id}")


async def restorable(request: AnyRequest, session_id: str) -> Session | None:
    """Give the deleted conversation where it may still be restored."""
    return await parts_of(request).chat.deletion.restorable(caller_of(request), session_id)


async def deleted_of(request: AnyRequest) -> Session | None:
    """Give what ``?deleted`` names, where it may still be restored."""
    session_id = query_value(request, "deleted")
    return await restorable(request, session_id) if session_id else None


def _is_shown(request: AnyRequest, session_id: str) -> bool:
    """Say whether the page that sent this shows the conversation."""
    return urlsplit(request.headers.get("hx-current-url", "")).path == f"/chat/{session_id}"


ROUTES: Final = [conversations, rename, delete, restore]
