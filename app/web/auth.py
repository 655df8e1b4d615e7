"""Who is asking: the one place that decides it, for every route but the public ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from app.accounts.tokens import InvalidToken, TokenVerifier
from app.domain.caller import DEVELOPMENT_USER, Caller
from app.domain.errors import Forbidden, Unauthenticated
from app.streams.tickets import Tickets
from app.web.cookies import COOKIES_KEY, cookies_of
from app.web.csrf import check_csrf
from app.web.exchange import exchange_of
from app.web.signed_in import Renews, keep_signed_in

PUBLIC: Final = {"public": True}
"""``opt`` of a route that needs no identity: probes, metrics, static files, the schema."""

TAKES_TICKETS: Final = {"ticket": True}
"""``opt`` of a route that takes a ticket in its address."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_Connection = ASGIConnection[Any, Any, Any, Any]


class Gatekeeper:
    """Decides who a request acts as; a Litestar guard, asked before every handler.

    A request is judged by the first of these that it has, and by it alone: ``Authorization``; a
    ticket, on routes that take them; the cookie of a sign-in; and in development nothing at all,
    which is the user ``dev``. The last two are ambient: the browser brings them along with whatever
    a page of another site makes it send. So an unsafe request must come from our own pages
    (Fetch Metadata, ``Origin``), and one with a cookie must have its CSRF token besides.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        tickets: Tickets,
        *,
        is_revoked: Callable[[Caller], bool],
        accounts: Renews | None = None,
        is_development: bool,
        public_origin: str | None = None,
    ) -> None:
        """Take what knows tokens, tickets and revocations, and where browsers find us.

        ``accounts`` keep a browser signed in while it is in use. Without ``public_origin`` the
        request's own ``Host`` says where browsers find us.
        """
        self.tickets = tickets
        self._verifier = verifier
        self._is_revoked = is_revoked
        self._accounts = accounts
        self._is_development = is_development
        self._public_origin = public_origin

    async def __call__(self, connection: _Connection, handler: BaseRouteHandler) -> None:
        """Let the request pass with ``scope["user"]`` set, or raise.

        Raises Unauthenticated without a valid credential, Forbidden for an unsafe request with
        ambient identity that another site's page sent, and Unavailable where nobody can say.
        """
        if handler.opt.get("public"):
            return
        caller = await self._identify(connection, takes_tickets=bool(handler.opt.get("ticket")))
        if caller is None:
            raise Unauthenticated
        if connection.scope.get("method", "GET") not in _SAFE_METHODS:
            if caller.credential in {"development", "cookie"}:
                self.check_origin(connection)
            if caller.credential == "cookie":
                await check_csrf(connection, caller.sign_in_id or "")
        connection.scope["user"] = caller
        exchange_of(connection.scope).note(user_id=caller.user_id)

    async def caller_of_token(self, token: str) -> Caller:
        """Give whom a token names; raise Unauthenticated where it is wrong, expired or revoked."""
        return self._unless_revoked(await self._verifier.verify(token))

    async def caller_of_socket(self, connection: _Connection) -> Caller | None:
        """Give who a WebSocket acts as from its start; None where it has to say so first.

        Raises Unauthenticated for a wrong credential, Forbidden for another site's page: a
        browser opens WebSockets across origins, and would bring its user's identity along.
        """
        caller = await self._identify(connection, takes_tickets=True)
        if caller is None or caller.credential in {"development", "cookie"}:
            # What brings a cookie is a browser, and a browser says where its page is from.
            has_cookie = caller is not None and caller.credential == "cookie"
            self.check_origin(connection, is_needed=has_cookie)
        return caller

    def check_still(self, caller: Caller) -> None:
        """Raise InvalidToken where a caller who was let in would not be any more."""
        # A stream under a cookie ends when that is to be renewed, without a word of refusal.
        is_renewed = caller.credential == "cookie"
        if not is_renewed and caller.expires_at is not None and time.time() >= caller.expires_at:
            raise InvalidToken("the token has expired")
        self._unless_revoked(caller)

    async def _identify(self, connection: _Connection, *, takes_tickets: bool) -> Caller | None:
        credentials = connection.headers.getall("authorization", [])
        if len(credentials) > 1:
            raise InvalidToken("more than one Authorization header was sent")
        if credentials:
            scheme, _, token = credentials[0].strip().partition(" ")
            if scheme.lower() != "bearer":
                raise InvalidToken("the Authorization header must be of the form «Bearer <JWT>»")
            return await self.caller_of_token(token.strip())
        if takes_tickets and "ticket" in connection.query_params:
            return await self._caller_of_ticket(connection)
        token_of_cookie = _token_of_cookie(connection)
        if token_of_cookie is not None:
            return await self._caller_of_cookie(connection, token_of_cookie)
        if self._is_development:
            return Caller(DEVELOPMENT_USER, DEVELOPMENT_USER, credential="development")
        return None

    async def _caller_of_ticket(self, connection: _Connection) -> Caller:
        tickets = connection.query_params.getall("ticket", [])
        if len(tickets) > 1:
            raise InvalidToken("more than one ticket was sent")
        caller = await self.tickets.redeem(tickets[0])
        if caller is None:
            raise InvalidToken("the ticket is not valid: it works once, and for a short time")
        self.check_still(caller)
        return caller

    def _unless_revoked(self, caller: Caller) -> Caller:
        if self._is_revoked(caller):
            raise InvalidToken("the credential was revoked")
        return caller

    async def _caller_of_cookie(self, connection: _Connection, token: str) -> Caller:
        # Only what we signed: nobody else's token keeps a browser signed in.
        may_renew = self._accounts is not None
        caller = self._verifier.verify_own(token, may_have_expired=may_renew)
        caller = self._unless_revoked(caller._replace(credential="cookie"))
        if caller.sign_in_id is None:
            raise InvalidToken("the cookie is of no sign-in")
        if self._accounts is None:
            return caller
        kept = await keep_signed_in(connection, caller, self._accounts)
        if kept is None:
            raise InvalidToken("the sign-in has ended")
        return kept

    def check_origin(self, connection: _Connection, *, is_needed: bool = False) -> None:
        """Refuse what another site's page made the browser send (Fetch Metadata; RFC 6454)."""
        site = connection.headers.get("sec-fetch-site")
        origin, host = connection.headers.get("origin"), connection.headers.get("host")
        if site is not None and not is_needed:
            # «none» is the person: a typed address, a bookmark.
            if site not in {"same-origin", "none"}:
                raise Forbidden("the request comes from another site")
            return
        own = {self._public_origin, f"http://{host}", f"https://{host}"}
        if origin not in own and (is_needed or origin is not None):
            raise Forbidden("the request comes from another origin")


def caller_of(connection: _Connection) -> Caller:
    """Give the caller that the gatekeeper let in."""
    caller = connection.scope["user"]
    if not isinstance(caller, Caller):  # pragma: no cover
        message = "the route is public: it has no caller"
        raise TypeError(message)
    return caller


def _token_of_cookie(connection: _Connection) -> str | None:
    if COOKIES_KEY not in connection.app.state:
        return None
    return cookies_of(connection).token_of(connection)
