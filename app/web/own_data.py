"""What a person may do with all that is theirs: take it along, and have it deleted."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import Final

from litestar import get, post
from litestar.response import Response
from litestar.types import ASGIApp

from app.domain.errors import ChatError, Forbidden, Unavailable, ValidationFailed
from app.web.auth import caller_of
from app.web.bodies import read_form
from app.web.download import Download
from app.web.forwarding import page, see_other
from app.web.limits import STREAMS
from app.web.parts import parts_of
from app.web.problems import AnyRequest, Problem, prefers_html, problem_of
from app.web.sign_in import tried
from app.web.signed_in import signed_out

MEDIA_TYPE: Final = "application/x-ndjson"
_AT_ONCE: Final = 50
"""Sessions that are deleted before the answer is sent; a worker does the rest."""


@get(["/account/export", "/api/account/export"], opt=STREAMS)
async def export(request: AnyRequest) -> ASGIApp:
    """Give all that the caller has, as a file of lines of JSON."""
    parts, caller = parts_of(request), caller_of(request)
    return Download(
        parts.exporting.lines(caller),
        name=f"throughline-{_safe(caller.name)}-{datetime.now(UTC):%Y-%m-%d}.ndjson",
        media_type=MEDIA_TYPE,
        # Who signs out everywhere stops this as well.
        check=lambda: parts.gatekeeper.check_still(caller),
        send_timeout_seconds=parts.send_timeout_seconds,
    )


@get("/account/delete")
async def deletion_form(request: AnyRequest) -> Response[bytes]:
    """Ask whether the account is to be deleted, and for the password."""
    if caller_of(request).sign_in_id is None:
        return see_other("/sign-in?next=/account/delete")
    return await _form(request)


@post("/account/delete")
async def delete_account(request: AnyRequest) -> Response[bytes]:
    """Delete the account with all that was said in it; this cannot be taken back."""
    fields = await read_form(request)
    parts, caller = parts_of(request), caller_of(request)
    if caller.sign_in_id is None:
        raise Forbidden("this page is for a browser that is signed in")
    try:
        if fields.get("sure") != "yes":
            raise ValidationFailed("say that you are sure: this cannot be taken back")
        beginning = parts.erasure.begin(
            user_id=caller.user_id, password=fields.get("current_password", "")
        )
        await tried(request, caller.name, beginning)
    except ChatError as error:
        if not prefers_html(request):
            raise
        return await _form(request, problem_of(error))
    # Recorded: a worker does it all where this node cannot. What is being answered ends now.
    with contextlib.suppress(Unavailable):
        await parts.chat.deletion.erase(caller.user_id, limit=_AT_ONCE)
    return signed_out(request, see_other("/sign-in"))


async def _form(request: AnyRequest, problem: Problem | None = None) -> Response[bytes]:
    parts, caller = parts_of(request), caller_of(request)
    return page(
        parts,
        "account_delete.html",
        problem=problem,
        caller=caller,
        needs_password=await parts.erasure.needs_password(user_id=caller.user_id),
    )


def _safe(name: str) -> str:
    """Give a name as a part of a file's name, of what every system and header takes."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name, flags=re.ASCII).strip("-")[:40] or "account"


ROUTES: Final = [export, deletion_form, delete_account]
