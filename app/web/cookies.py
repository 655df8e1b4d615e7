"""The cookies of a browser that is signed in: one that it proves itself with, one for its scripts.

Over https the first has the prefix ``__Host-``: the browser takes it from this host alone, for all
of its paths, and never sends it in the clear (RFC 6265bis, section 4.1.3.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from http import cookies
from typing import Any, Final, NamedTuple

from litestar.connection import ASGIConnection

CSRF_COOKIE: Final = "csrftoken"
"""Scripts of our own pages may read it; what it holds is worth nothing without the other cookie."""
COOKIES_KEY: Final = "cookies"
"""Where the application's state has the rules."""

_NAME: Final = "throughline"
_PREFIX: Final = "__Host-"

_Connection = ASGIConnection[Any, Any, Any, Any]


class Cookies(NamedTuple):
    """How the cookies are named and for how long a browser keeps them."""

    is_secure: bool
    """Whether browsers reach the service by https."""
    lifetime_seconds: int

    @property
    def name(self) -> str:
        """Give the name of the cookie that has the token."""
        return _PREFIX + _NAME if self.is_secure else _NAME

    def token_of(self, connection: _Connection) -> str | None:
        """Give the token that a browser sent; an empty one is none."""
        return connection.cookies.get(self.name) or None

    def signed_in(self, *, token: str, csrf_token: str) -> Iterable[str]:
        """Give the ``Set-Cookie`` values that a browser stays signed in with."""
        yield self._line(self.name, token, self.lifetime_seconds, hidden=True)
        yield self._line(CSRF_COOKIE, csrf_token, self.lifetime_seconds, hidden=False)

    def csrf_anew(self, csrf_token: str) -> Iterable[str]:
        """Give the ``Set-Cookie`` value for scripts that have lost theirs, or have an old one."""
        yield self._line(CSRF_COOKIE, csrf_token, self.lifetime_seconds, hidden=False)

    def signed_out(self) -> Iterable[str]:
        """Give the ``Set-Cookie`` values that make a browser forget."""
        yield self._line(self.name, "", 0, hidden=True)
        yield self._line(CSRF_COOKIE, "", 0, hidden=False)

    def _line(self, name: str, value: str, seconds: int, *, hidden: bool) -> str:
        crumb = cookies.Morsel[str]()
        crumb.set(name, value, value)
        crumb.update({"path": "/", "max-age": str(seconds), "samesite": "Lax"})
        if hidden:
            crumb["httponly"] = True
        if self.is_secure:
            crumb["secure"] = True
        return crumb.OutputString()


def cookies_of(connection: _Connection) -> Cookies:
    """Give the rules that the application was made with."""
    found = connection.app.state[COOKIES_KEY]
    if not isinstance(found, Cookies):  # pragma: no cover
        message = "the application was not made by create_application"
        raise TypeError(message)
    return found


def token_of_cookie(connection: _Connection) -> str | None:
    """Give the token of the sign-in cookie; None where the browser sent none."""
    return cookies_of(connection).token_of(connection)
