"""Cross-site request forgery: what a cookie alone must not be able to do.

A browser sends its cookie along with whatever request another site's page makes it send. So a
request that changes something and brings nothing but the cookie is refused, on every route, unless
it has the token that only our own pages know: as the header ``X-CSRFToken``, or as the field
``_csrf_token`` of a form. The token is bound to the sign-in; a new sign-in has another.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final

from litestar.connection import ASGIConnection

from app.domain.errors import CsrfFailed

CSRF_FIELD: Final = "_csrf_token"
CSRF_HEADER: Final = "x-csrftoken"
CSRF_KEY: Final = "csrf"
"""Where the application's state has the check."""

_Connection = ASGIConnection[Any, Any, Any, Any]


class Csrf:
    """Makes and checks the tokens of sign-ins."""

    def __init__(
        self, key: bytes, read_field: Callable[[_Connection], Awaitable[str | None]]
    ) -> None:
        """Take the secret, and what reads the field of a form, None where the body is none."""
        # A key of its own: nothing signed for another purpose can be passed off as a token.
        self._key = hmac.digest(key, b"throughline csrf", hashlib.sha256)
        self._read_field = read_field

    def token_of(self, sign_in_id: str) -> str:
        """Give the token of a sign-in, the same each time."""
        return hmac.new(self._key, sign_in_id.encode(), hashlib.sha256).hexdigest()

    async def check(self, connection: _Connection, sign_in_id: str) -> None:
        """Raise CsrfFailed unless the request has the token of this sign-in.

        Where there is a header the body is not looked at. What is read of it is kept for the
        handler.
        """
        headers = connection.headers.getall(CSRF_HEADER, [])
        given = headers[0] if headers else await self._read_field(connection)
        if given is None:
            raise CsrfFailed("the CSRF token is missing: reload the page and try again")
        if len(headers) > 1 or not hmac.compare_digest(
            given.encode(), self.token_of(sign_in_id).encode()
        ):
            raise CsrfFailed("the CSRF token is not this sign-in's: reload the page and try again")


def csrf_of(connection: _Connection) -> Csrf:
    """Give the check that the application was made with."""
    found = connection.app.state[CSRF_KEY]
    if not isinstance(found, Csrf):  # pragma: no cover
        message = "the application was not made by create_application"
        raise TypeError(message)
    return found


async def check_csrf(connection: _Connection, sign_in_id: str) -> None:
    """Raise CsrfFailed unless the request has the token of this sign-in."""
    await csrf_of(connection).check(connection, sign_in_id)
