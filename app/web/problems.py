"""Every error as an RFC 9457 problem document, or as a page where a browser asks for one."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from litestar.connection import Request
from litestar.exceptions import HTTPException
from litestar.response import Response

from app.accounts.tokens import InvalidToken
from app.domain.errors import ChatError, SignInFailed, Unauthenticated, ValidationFailed
from app.web.exchange import exchange_of

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"

_log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]


class InvalidFields(ValidationFailed):
    """The request's fields are wrong; each is named in the problem's ``errors``."""

    def __init__(self, field: str, detail: str) -> None:
        """Take the one field that was found wrong first."""
        super().__init__(detail, errors=[{"field": field, "detail": detail}])


class UnsupportedMediaType(ChatError):
    """The body's media type is not the one that the route takes."""

    code = "unsupported_media_type"
    title = "The media type of the body is not supported"
    http_status = 415
    close_code = 4400


class PayloadTooLarge(ChatError):
    """The body is larger than any request may be."""

    code = "payload_too_large"
    title = "The body is too large"
    http_status = 413
    close_code = 4413


class ClientGone(Exception):
    """The client left before it was answered; there is nobody to send a response to."""


class Problem(NamedTuple):
    """An error as the client is told of it."""

    status: int
    code: str
    title: str
    detail: str
    extra: dict[str, object]
    headers: dict[str, str]


_BY_STATUS: Final = {
    400: ("validation_failed", "The request is not valid"),
    404: ("not_found", "There is no such thing here"),
    405: ("method_not_allowed", "The method is not allowed here"),
    413: ("payload_too_large", "The body is too large"),
    415: ("unsupported_media_type", "The media type of the body is not supported"),
}
"""What Litestar itself raises; all else of it would be a bug and is told as one."""


def problem_of(error: Exception) -> Problem:
    """Say what a client is told of an error; what is not meant for it becomes a bare 500."""
    if isinstance(error, ChatError) and error.http_status != HTTPStatus.INTERNAL_SERVER_ERROR:
        headers = {}
        if error.retry_after_seconds is not None:
            headers["Retry-After"] = str(error.retry_after_seconds)
        if isinstance(error, Unauthenticated):
            headers["WWW-Authenticate"] = _challenge(error)
        return Problem(
            error.http_status, error.code, error.title, error.detail, error.extra, headers
        )
    if isinstance(error, HTTPException) and error.status_code in _BY_STATUS:
        code, title = _BY_STATUS[error.status_code]
        return Problem(error.status_code, code, title, title, {}, dict(error.headers or {}))
    return Problem(
        500,
        "internal_error",
        "Internal error",
        "Something went wrong here; the request id leads to it in the logs.",
        {},
        {},
    )


def _challenge(error: Unauthenticated) -> str:
    """RFC 6750, section 3: ``error`` only where a credential was presented."""
    if isinstance(error, InvalidToken):
        return 'Bearer realm="throughline", error="invalid_token"'
    return 'Bearer realm="throughline"'


def problem_document(problem: Problem, *, instance: str, request_id: str) -> bytes:
    """Encode a problem; members of ``extra`` never replace the standard ones."""
    return msgspec.json.encode(
        problem.extra
        | {
            "type": f"/schema#problem-{problem.code}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
            "code": problem.code,
            "instance": instance,
            "request_id": request_id,
        }
    )


class ProblemHandler:
    """Litestar's exception handler for everything."""

    def __init__(
        self,
        render_page: Callable[[AnyRequest, Problem], bytes],
        ask_to_sign_in: Callable[[AnyRequest], Response[bytes]],
    ) -> None:
        """Take what draws a problem for a browser: a page, or a fragment for htmx.

        ``ask_to_sign_in`` answers a browser that has to sign in first.
        """
        self._render_page = render_page
        self._ask_to_sign_in = ask_to_sign_in

    def __call__(self, request: AnyRequest, error: Exception) -> Response[bytes]:
        """Make the response to a request that failed."""
        if isinstance(error, ClientGone):
            return Response(b"", status_code=499, media_type="text/plain")
        if _must_sign_in(request, error):
            return self._ask_to_sign_in(request)
        problem = problem_of(error)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and problem.code == "internal_error":
            _log.error("unexpected error", exc_info=error)
        if isinstance(error, Unauthenticated) and request.headers.get("hx-request") == "true":
            # Whoever was signed in when the page was drawn is not any more.
            problem.headers["HX-Redirect"] = "/sign-in"
        if _wants_page(request):
            return Response(
                self._render_page(request, problem),
                status_code=problem.status,
                headers=problem.headers,
                media_type="text/html",
            )
        return Response(
            problem_document(
                problem,
                instance=request.scope["raw_path"].decode("ascii", "replace"),
                request_id=exchange_of(request.scope).request_id,
            ),
            status_code=problem.status,
            headers=problem.headers,
            media_type=PROBLEM_MEDIA_TYPE,
        )


def _must_sign_in(request: AnyRequest, error: Exception) -> bool:
    """Say whether a browser came without being signed in, or is so no more.

    Whoever sent a token is no browser, and is told what is wrong with it. Neither is a script of
    a page served well by another page in the place of what it asked for.
    """
    return (
        isinstance(error, Unauthenticated)
        and not isinstance(error, SignInFailed)
        and "authorization" not in request.headers
        and _wants_page(request)
        and request.headers.get("hx-request") != "true"
        and request.headers.get("sec-fetch-mode", "navigate") == "navigate"
    )


def _wants_page(request: AnyRequest) -> bool:
    if request.scope["raw_path"].startswith((b"/api/", b"/static/", b"/health", b"/metrics")):
        return False
    return prefers_html(request)


def prefers_html(request: AnyRequest) -> bool:
    """Say whether the client would rather have a page than JSON; ``*/*`` alone would not."""
    return quality_of(request, "text/html") > quality_of(request, "application/json")


def quality_of(request: AnyRequest, media_type: str) -> float:
    """Give the quality from 0 to 1 that the Accept header gives a media type."""
    return _quality(request.headers.get("accept", "*/*"), media_type)


def _quality(accept: str, media_type: str) -> float:
    """Give the quality that an Accept header states for a media type (RFC 9110, 12.5.1)."""
    main, _, _ = media_type.partition("/")
    best, specificity = 0.0, -1
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        rank = {media_type: 2, f"{main}/*": 1, "*/*": 0}.get(name, -1)
        if rank > specificity:
            specificity, best = rank, _written_quality(parameters)
    return best


def _written_quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
