"""The account page: who is signed in, another password, signing out everywhere."""

from __future__ import annotations

from typing import Final

from litestar import get, post
from litestar.response import Response

from app.domain.errors import ChatError, Forbidden, ValidationFailed
from app.web.auth import caller_of
from app.web.bodies import read_body, read_form
from app.web.forwarding import page, see_other
from app.web.parameters import query_value
from app.web.parts import parts_of
from app.web.problems import AnyRequest, Problem, prefers_html, problem_of
from app.web.sign_in import tried
from app.web.signed_in import signed_in, signed_out


@get("/account")
async def account(request: AnyRequest) -> Response[bytes]:
    """Show the account of whoever is signed in; who is not is asked to do that first."""
    if caller_of(request).sign_in_id is None:
        return see_other("/sign-in?next=/account")
    return await _account_page(request, is_changed=query_value(request, "changed") is not None)


@post("/account/password")
async def change_password(request: AnyRequest) -> Response[bytes]:
    """Change the password; every other sign-in ends."""
    fields = await read_form(request)
    caller = caller_of(request)
    if caller.sign_in_id is None:
        raise Forbidden("this page is for a browser that is signed in")
    try:
        if fields.get("new_password", "") != fields.get("repeated_password", ""):
            raise ValidationFailed("the new password was not written the same way twice")
        changing = parts_of(request).accounts.change_password(
            user_id=caller.user_id,
            sign_in_id=caller.sign_in_id,
            old=fields.get("current_password", ""),
            new=fields.get("new_password", ""),
        )
        begun = await tried(request, caller.name, changing)
    except ChatError as error:
        if not prefers_html(request):
            raise
        return await _account_page(request, problem=problem_of(error))
    if begun is None:
        # It was ended elsewhere in this very moment.
        return signed_out(request, see_other("/sign-in"))
    return signed_in(request, begun, see_other("/account?changed"))


@post("/account/sign-out-everywhere")
async def sign_out_everywhere(request: AnyRequest) -> Response[bytes]:
    """End every sign-in of the user, this one too, and all tokens."""
    await read_body(request)
    await parts_of(request).accounts.sign_out_everywhere(user_id=caller_of(request).user_id)
    return signed_out(request, see_other("/sign-in"))


async def _account_page(
    request: AnyRequest, *, problem: Problem | None = None, is_changed: bool = False
) -> Response[bytes]:
    parts, caller = parts_of(request), caller_of(request)
    return page(
        parts,
        "account.html",
        problem=problem,
        caller=caller,
        sign_ins=await parts.accounts.other_sign_ins(user_id=caller.user_id),
        is_changed=is_changed,
    )


ROUTES: Final = [account, change_password, sign_out_everywhere]
