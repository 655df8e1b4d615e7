"""Signing in, up and out: pages that work without a script, and a call for programs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

from litestar import get, post
from litestar.response import Response

from app.domain.errors import ChatError, SignInFailed, SignUpRefused
from app.web.auth import caller_of
from app.web.bodies import read_body, read_form, read_json
from app.web.cookies import token_of_cookie
from app.web.exchange import exchange_of
from app.web.forms import AccessToken, Credentials
from app.web.forwarding import page, see_other
from app.web.limits import PUBLIC_LIMITED
from app.web.parameters import query_value
from app.web.parts import parts_of
from app.web.problems import AnyRequest, Problem, prefers_html, problem_of
from app.web.proxies import address_of, limited_address
from app.web.signed_in import signed_in, signed_out

_NEXT_MAX_CHARACTERS: Final = 2000

_Outcome = TypeVar("_Outcome")


@get("/sign-in", opt=PUBLIC_LIMITED)
async def sign_in_form(request: AnyRequest) -> Response[bytes]:
    """Show the form; ``?next`` is where it leads to."""
    return _sign_in_page(request, {"next": query_value(request, "next") or ""})


@post("/sign-in", opt=PUBLIC_LIMITED)
async def sign_in(request: AnyRequest) -> Response[bytes]:
    """Sign in, and go on to where the visitor wanted to be."""
    parts = parts_of(request)
    parts.gatekeeper.check_origin(request)
    fields = await read_form(request)
    try:
        name = fields.get("username", "")
        signing_in = parts.accounts.sign_in(name=name, password=fields.get("password", ""))
        begun = await tried(request, name, signing_in)
    except ChatError as error:
        if not prefers_html(request):
            raise
        return _sign_in_page(request, fields, problem_of(error))
    exchange_of(request.scope).note(user_id=begun.user_id)
    return signed_in(request, begun, see_other(local_path(fields.get("next", ""))))


@get("/sign-in/link", opt=PUBLIC_LIMITED)
async def sign_in_by_link(request: AnyRequest) -> Response[bytes]:
    """Sign in with a one-time link; it is used up by that."""
    if exchange_of(request.scope).is_head:
        # Whoever looks whether the link is there must not use it up.
        return see_other("/sign-in")
    try:
        begun = await parts_of(request).accounts.sign_in_by_link(query_value(request, "code") or "")
    except ChatError as error:
        if not prefers_html(request):
            raise
        return _sign_in_page(request, {}, problem_of(error))
    return signed_in(request, begun, see_other("/"))


@get("/sign-up", opt=PUBLIC_LIMITED)
async def sign_up_form(request: AnyRequest) -> Response[bytes]:
    """Show the form to whoever may make an account; ``?invitation`` is the code for it."""
    fields = {"invitation": query_value(request, "invitation") or ""}
    try:
        await parts_of(request).accounts.check_invitation(fields["invitation"])
    except SignUpRefused as error:
        if not prefers_html(request):
            raise
        return _sign_up_page(request, fields, problem_of(error), is_refused=True)
    return _sign_up_page(request, fields)


@post("/sign-up", opt=PUBLIC_LIMITED)
async def sign_up(request: AnyRequest) -> Response[bytes]:
    """Make an account, and sign in to it."""
    parts = parts_of(request)
    parts.gatekeeper.check_origin(request)
    fields = await read_form(request)
    try:
        begun = await parts.accounts.sign_up(
            name=fields.get("username", ""),
            password=fields.get("password", ""),
            invitation=fields.get("invitation") or None,
        )
    except ChatError as error:
        if not prefers_html(request):
            raise
        return _sign_up_page(
            request, fields, problem_of(error), is_refused=isinstance(error, SignUpRefused)
        )
    exchange_of(request.scope).note(user_id=begun.user_id)
    return signed_in(request, begun, see_other("/"))


@post("/sign-out")
async def sign_out(request: AnyRequest) -> Response[bytes]:
    """End this browser's sign-in; what it has open in other tabs ends as well."""
    await read_body(request)
    caller = caller_of(request)
    if caller.sign_in_id is not None:
        await parts_of(request).accounts.sign_out(
            user_id=caller.user_id, sign_in_id=caller.sign_in_id
        )
    return signed_out(request, see_other("/sign-in"))


@post("/auth/token", opt=PUBLIC_LIMITED, status_code=200)
async def token(request: AnyRequest) -> AccessToken:
    """Give a program's token for a name and a password."""
    credentials = await read_json(request, Credentials)
    accounts = parts_of(request).accounts
    name = credentials.username
    issuing = accounts.token(name=name, password=credentials.password)
    issued = await tried(request, name, issuing)
    return AccessToken(access_token=issued, expires_in=accounts.rules.token_seconds)


async def tried(
    request: AnyRequest, name: str, attempt: Coroutine[None, None, _Outcome]
) -> _Outcome:
    """Let somebody try a password, as often as the limits allow. Raises RateLimited."""
    limits, address = parts_of(request).limits.sign_in, limited_address(address_of(request.scope))
    try:
        await limits.check(name, address)
    except BaseException:
        attempt.close()
        raise
    try:
        outcome = await attempt
    except SignInFailed:
        await limits.failed(name, address)
        raise
    await limits.succeeded(name, address)
    return outcome


def local_path(written: str) -> str:
    """Give ``next`` where it leads to a page of ours, else the first page.

    What browsers would read as another host begins with two slashes, or backslashes, or has a
    control character that they leave out (WHATWG URL, 4.4).
    """
    is_ours = (
        len(written) <= _NEXT_MAX_CHARACTERS
        and written.startswith("/")
        and not written.startswith("//")
        and "\\" not in written
        and written.isascii()
        and written.isprintable()
        and urlsplit(written).path.rstrip("/") not in {"/sign-in", "/sign-out"}
    )
    return written if is_ours else "/"


def ask_to_sign_in(request: AnyRequest) -> Response[bytes]:
    """Send a browser to sign in, and let it forget a cookie that is good for nothing."""
    response = see_other(sign_in_address(request))
    return signed_out(request, response) if token_of_cookie(request) else response


def sign_in_address(request: AnyRequest) -> str:
    """Give where to send a visitor who has to sign in first, and where that leads back to."""
    path = request.scope["raw_path"].decode("ascii", "replace")
    query = request.scope["query_string"].decode("ascii", "replace")
    wanted = local_path(f"{path}?{query}" if query else path)
    if request.method != "GET" or wanted == "/":
        return "/sign-in"
    return f"/sign-in?next={quote(wanted, safe='/')}"


def _sign_in_page(
    request: AnyRequest, fields: dict[str, str], problem: Problem | None = None
) -> Response[bytes]:
    parts = parts_of(request)
    return page(
        parts,
        "sign_in.html",
        problem=problem,
        username=fields.get("username", ""),
        wanted=local_path(fields.get("next", "")),
        sign_up=parts.accounts.rules.sign_up,
        is_development=parts.is_development,
    )


def _sign_up_page(
    request: AnyRequest,
    fields: dict[str, str],
    problem: Problem | None = None,
    *,
    is_refused: bool = False,
) -> Response[bytes]:
    return page(
        parts_of(request),
        "sign_up.html",
        problem=problem,
        username=fields.get("username", ""),
        invitation=fields.get("invitation", ""),
        is_refused=is_refused,
    )


ROUTES: Final = [
    sign_in_form,
    sign_in,
    sign_in_by_link,
    sign_up_form,
    sign_up,
    sign_out,
    token,
]
