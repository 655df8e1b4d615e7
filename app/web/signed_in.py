"""A browser that is signed in: kept so while it is used, and named on the pages it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.response import Response
from markupsafe import Markup

from app.accounts.accounts import SignedIn
from app.domain.caller import Caller
from app.domain.errors import Unavailable
from app.web.cookies import CSRF_COOKIE, cookies_of
from app.web.csrf import CSRF_FIELD, csrf_of
from app.web.exchange import exchange_of

_Connection = ASGIConnection[Any, Any, Any, Any]


class Visitor(NamedTuple):
    """Who a page is drawn for."""

    name: str
    csrf_token: str

    @property
    def csrf_field(self) -> Markup:
        """Give the field that each form of the page needs where there are no scripts."""
        return Markup('<input type="hidden" name="{}" value="{}">').format(
            CSRF_FIELD, self.csrf_token
        )


_visitor: Final[ContextVar[Visitor | None]] = ContextVar("visitor", default=None)
"""Set by the gatekeeper for one request. Forms are drawn in many templates, some from within
streams; handing the token through all of them would let one be forgotten."""


class Renews(Protocol):
    """Gives a fresh token for a sign-in that is in use."""

    async def renew(self, sign_in_id: str) -> SignedIn | None: ...

    @property
    def cookie_seconds(self) -> int: ...


async def keep_signed_in(
    connection: _Connection, caller: Caller, accounts: Renews
) -> Caller | None:
    """Renew what a cookie's token says where half of its life is over; None where it has ended.

    ``caller`` is what the token says, which may have expired: the row of its sign-in decides then.
    Raises Unavailable where that cannot be read, and the token alone is not good any more.
    """
    sign_in_id, expires_at = caller.sign_in_id, caller.expires_at
    if sign_in_id is None or expires_at is None:
        return None
    now, is_http = time.time(), connection.scope["type"] == ScopeType.HTTP
    csrf_token = csrf_of(connection).token_of(sign_in_id)
    if is_http and connection.cookies.get(CSRF_COOKIE) != csrf_token:
        # Lost, or made under a key that was replaced since.
        exchange_of(connection.scope).set_cookies(cookies_of(connection).csrf_anew(csrf_token))
    if expires_at - now < accounts.cookie_seconds / 2:
        try:
            renewed = await accounts.renew(sign_in_id)
        except Unavailable:
            if expires_at <= now:
                raise
            # The token is good for as long again; the next request tries.
        else:
            if renewed is None:
                return None
            if is_http:
                _give(connection, renewed)
            caller = caller._replace(
                name=renewed.name,
                roles=frozenset(renewed.roles),
                expires_at=now + accounts.cookie_seconds,
            )
    _visitor.set(Visitor(caller.name, csrf_token))
    return caller


def visitor() -> Visitor | None:
    """Give who is signed in on the page that is being drawn; None where nobody is."""
    return _visitor.get()


def csrf_field() -> Markup:
    """Give the hidden field of a form; nothing where nobody is signed in."""
    found = visitor()
    return Markup() if found is None else found.csrf_field


TEMPLATE_GLOBALS: Final[dict[str, Callable[[], object]]] = {
    "visitor": visitor,
    "csrf_field": csrf_field,
}


def signed_in(
    connection: _Connection, begun: SignedIn, response: Response[bytes]
) -> Response[bytes]:
    """Let the response sign the browser in."""
    _give(connection, begun)
    return response


def signed_out(connection: _Connection, response: Response[bytes]) -> Response[bytes]:
    """Let the response make the browser forget its sign-in."""
    exchange_of(connection.scope).set_cookies(cookies_of(connection).signed_out())
    return response


def _give(connection: _Connection, begun: SignedIn) -> None:
    exchange_of(connection.scope).set_cookies(
        cookies_of(connection).signed_in(
            token=begun.token, csrf_token=csrf_of(connection).token_of(begun.sign_in_id)
        )
    )
