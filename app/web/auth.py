"""Who is asking: the one place that decides it, for every route but the public ones."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeGuard

import jwt
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from app.domain.caller import DEVELOPMENT_USER, Caller
from app.domain.errors import Forbidden, Unauthenticated
from app.web.exchange import exchange_of

PUBLIC: Final = {"public": True}
"""``opt`` of a route that needs no identity: probes, metrics, static files, the schema."""

_ALGORITHMS: Final = ["HS256"]
_LEEWAY_SECONDS: Final = 5
_SUBJECT_MAX_CHARACTERS: Final = 255
_TOKEN_MAX_CHARACTERS: Final = 8192
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_Connection = ASGIConnection[Any, Any, Any, Any]


class TokenRules(NamedTuple):
    """How a Bearer token is to be signed and what it must say."""

    key: bytes
    """HS256 key; PyJWT refuses one of fewer than 32 bytes."""
    issuer: str | None = None
    audience: str | None = None


class InvalidToken(Unauthenticated):
    """A credential was presented and is wrong or expired."""

    title = "The credential is not valid"


class Gatekeeper:
    """Decides who a request acts as; a Litestar guard, asked before every handler.

    A request with ``Authorization`` is judged by it alone. One without has ambient identity: in
    development the user ``dev``, in production none. Sign-in will add the session cookie here,
    with its CSRF token beside the check of the request's origin, which all ambient identity needs.
    """

    def __init__(
        self, tokens: TokenRules, *, is_development: bool, public_origin: str | None = None
    ) -> None:
        """Take the rules for tokens, whether the user ``dev`` exists, and where browsers find us.

        Without ``public_origin`` the request's own ``Host`` says that.
        """
        self._tokens = tokens
        self._is_development = is_development
        self._public_origin = public_origin
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})

    def __call__(self, connection: _Connection, handler: BaseRouteHandler) -> None:
        """Let the request pass with ``scope["user"]`` set, or raise.

        Raises Unauthenticated without a valid credential and Forbidden for an unsafe request with
        ambient identity that another site's page sent.
        """
        if handler.opt.get("public"):
            return
        caller = self._identify(connection)
        connection.scope["user"] = caller
        exchange_of(connection.scope).note(user_id=caller.user_id)

    def caller_of_token(self, token: str) -> Caller:
        """Give whom a token names; raise Unauthenticated where it is wrong or expired."""
        return self._caller_of(token)

    def caller_of_socket(self, connection: _Connection) -> Caller | None:
        """Give who a WebSocket acts as from its start; None where it has to say so first.

        Raises Unauthenticated for a wrong credential, Forbidden for another site's page: a
        browser opens WebSockets across origins, and would bring its user's identity along.
        """
        if "authorization" in connection.headers:
            return self._identify(connection)
        self._check_origin(connection)
        if self._is_development:
            return Caller(DEVELOPMENT_USER, DEVELOPMENT_USER)
        return None

    def _identify(self, connection: _Connection) -> Caller:
        credentials = connection.headers.getall("authorization", [])
        if len(credentials) > 1:
            raise InvalidToken("more than one Authorization header was sent")
        if credentials:
            scheme, _, token = credentials[0].strip().partition(" ")
            if scheme.lower() != "bearer":
                raise InvalidToken("the Authorization header must be of the form «Bearer <JWT>»")
            return self._caller_of(token.strip())
        if not self._is_development:
            raise Unauthenticated
        if connection.scope.get("method", "GET") not in _SAFE_METHODS:
            self._check_origin(connection)
        return Caller(DEVELOPMENT_USER, DEVELOPMENT_USER)

    def _caller_of(self, token: str) -> Caller:
        if len(token) > _TOKEN_MAX_CHARACTERS:
            raise InvalidToken("the token is too long")
        try:
            claims = self._jwt.decode(
                token,
                self._tokens.key,
                algorithms=_ALGORITHMS,
                issuer=self._tokens.issuer,
                audience=self._tokens.audience,
                leeway=_LEEWAY_SECONDS,
                options={
                    "require": ["exp", "sub"],
                    # PyJWT refuses any «aud» where none is expected.
                    "verify_aud": self._tokens.audience is not None,
                },
            )
            expires_at = float(claims["exp"])
        except jwt.ExpiredSignatureError as error:
            raise InvalidToken("the token has expired") from error
        # PyJWT lets a signed exp through that is no number, or none that a float can hold.
        except (jwt.PyJWTError, TypeError, OverflowError) as error:
            raise InvalidToken("the token is not valid") from error
        subject, roles = claims["sub"], claims.get("roles", [])
        if not _is_subject(subject):
            raise InvalidToken("the token's sub must be 1 to 255 storable characters")
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise InvalidToken("the token's roles must be a list of names")
        name = claims.get("name")
        return Caller(
            user_id=subject,
            name=name if _is_subject(name) else subject,
            roles=frozenset(roles),
            expires_at=expires_at,
        )

    def _check_origin(self, connection: _Connection) -> None:
        """Refuse what another site's page made the browser send (Fetch Metadata; RFC 6454)."""
        site = connection.headers.get("sec-fetch-site")
        if site is not None:
            # «none» is the person: a typed address, a bookmark.
            if site not in {"same-origin", "none"}:
                raise Forbidden("the request comes from another site")
            return
        origin, host = connection.headers.get("origin"), connection.headers.get("host")
        own = {self._public_origin, f"http://{host}", f"https://{host}"}
        if origin is not None and origin not in own:
            raise Forbidden("the request comes from another origin")


def caller_of(connection: _Connection) -> Caller:
    """Give the caller that the gatekeeper let in."""
    caller = connection.scope["user"]
    if not isinstance(caller, Caller):  # pragma: no cover
        message = "the route is public: it has no caller"
        raise TypeError(message)
    return caller


def _is_subject(value: object) -> TypeGuard[str]:
    return (
        isinstance(value, str)
        and 0 < len(value) <= _SUBJECT_MAX_CHARACTERS
        and "\x00" not in value
        and not any("\ud800" <= character <= "\udfff" for character in value)
    )
