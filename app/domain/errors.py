"""Every error that a caller may see, as one small tree.

::

    ChatError                      code                     HTTP  WebSocket  try again
    ├─ ValidationFailed            validation_failed         400    4400      no
    │  ├─ InvalidPosition          invalid_position          400    4400      no
    │  ├─ InvalidCursor            invalid_cursor            400    4400      no
    │  └─ UnknownModel             unknown_model             400    4400      no
    ├─ Unauthenticated             unauthenticated           401    4401      no
    │  └─ SignInFailed             sign_in_failed            401    4401      no
    ├─ Forbidden                   forbidden                 403    4403      no
    │  ├─ CsrfFailed               csrf_failed               403    4403      no
    │  └─ SignUpRefused            sign_up_refused           403    4403      no
    ├─ NameTaken                   name_taken                409    4400      no
    ├─ NotFound                    not_found                 404    4404      no
    ├─ GenerationInProgress        generation_in_progress    409    4400      no
    ├─ SessionExists               session_exists            409    4400      no
    ├─ NotRegenerable              not_regenerable           409    4400      no
    ├─ TooManyConnections          too_many_connections      429    4290      yes
    ├─ RateLimited                 rate_limited              429    4290      yes
    ├─ Overloaded                  overloaded                503    1013      yes
    │  └─ Unavailable              unavailable               503    1013      yes
    └─ AnswerFailed                (what ended an answer; never an HTTP response)

A code is part of the contract: it never changes its meaning. Anything that reaches a client as a
500 is not in this tree and is a bug.
"""

from __future__ import annotations

from typing import ClassVar


class ChatError(Exception):
    """Base of the tree; ``detail`` is a sentence for a person, safe to show to the caller."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str | None = None, **extra: object) -> None:
        """Take the sentence for a person and further members of the problem document."""
        self.detail = detail or self.title
        self.extra = extra
        super().__init__(self.detail)

    @property
    def retry_after_seconds(self) -> int | None:
        """Seconds for a ``Retry-After`` header; None where trying again does not help."""
        return 2 if self.retryable else None


class ValidationFailed(ChatError):
    """The request is not of the documented form; nothing was stored."""

    code = "validation_failed"
    title = "The request is not valid"
    http_status = 400
    close_code = 4400


class InvalidPosition(ValidationFailed):
    """A position that is not ``<epoch>-<seq>``; never answered with a replay."""

    code = "invalid_position"
    title = "The position is not of the form <epoch>-<seq>"


class InvalidCursor(ValidationFailed):
    """A page cursor that this server did not make."""

    code = "invalid_cursor"
    title = "The page cursor was not made by this server"


class UnknownModel(ValidationFailed):
    """A model that ``GET /api/models`` does not list."""

    code = "unknown_model"
    title = "There is no such model"


class Unauthenticated(ChatError):
    """No credential, or one that is wrong or expired."""

    code = "unauthenticated"
    title = "A valid credential is required"
    http_status = 401
    close_code = 4401


class SignInFailed(Unauthenticated):
    """Name and password do not go together, or the link was used: which of them is not said."""

    code = "sign_in_failed"
    title = "The name or the password is not right"


class Forbidden(ChatError):
    """The caller is known and may not do this."""

    code = "forbidden"
    title = "This is not allowed"
    http_status = 403
    close_code = 4403


class CsrfFailed(Forbidden):
    """A cookie came without the token that shows that one of our own pages sent the request."""

    code = "csrf_failed"
    title = "The request does not come from a page of this sign-in"


class SignUpRefused(Forbidden):
    """Accounts are not to be had like this: none at all, or by an invitation that is good."""

    code = "sign_up_refused"
    title = "An account cannot be made like this"


class NameTaken(ChatError):
    """Somebody else has the name."""

    code = "name_taken"
    title = "This name is taken"
    http_status = 409
    close_code = 4400


class NotFound(ChatError):
    """It does not exist, was deleted, or belongs to somebody else: the caller cannot tell which."""

    code = "not_found"
    title = "There is no such thing here"
    http_status = 404
    close_code = 4404


class GenerationInProgress(ChatError):
    """The session is being answered; ``message_id`` names the unfinished answer."""

    code = "generation_in_progress"
    title = "An answer is being generated in this session"
    http_status = 409
    close_code = 4400


class SessionExists(ChatError):
    """The chosen session id is taken by another of the caller's sessions."""

    code = "session_exists"
    title = "A session with this id exists"
    http_status = 409
    close_code = 4400


class NotRegenerable(ChatError):
    """Only the latest answer of a session can be generated again."""

    code = "not_regenerable"
    title = "Only the latest answer can be generated again"
    http_status = 409
    close_code = 4400


class TooManyConnections(ChatError):
    """The user holds as many streams on this node as the settings allow."""

    code = "too_many_connections"
    title = "Too many open streams"
    http_status = 429
    close_code = 4290
    retryable = True


class RateLimited(ChatError):
    """As much as the settings allow was done; ``retry_after_seconds`` later there is room again."""

    code = "rate_limited"
    title = "Too much at once"
    http_status = 429
    close_code = 4290
    retryable = True

    def __init__(self, retry_after_seconds: int, detail: str | None = None) -> None:
        """Take the wait in whole seconds, 1 at least."""
        self._retry_after_seconds = max(retry_after_seconds, 1)
        unit = "second" if self._retry_after_seconds == 1 else "seconds"
        super().__init__(
            f"{detail or self.title}; try again in {self._retry_after_seconds} {unit}",
            retry_after_seconds=self._retry_after_seconds,
        )

    @property
    def retry_after_seconds(self) -> int:
        """Seconds until there is room."""
        return self._retry_after_seconds


class Overloaded(ChatError):
    """The job queue is full; nothing was stored."""

    code = "overloaded"
    title = "Too many questions are waiting"
    http_status = 503
    close_code = 1013
    retryable = True


class Unavailable(Overloaded):
    """A part that this request needs cannot be reached; nothing was stored."""

    code = "unavailable"
    title = "A part of the service cannot be reached"


class AnswerFailed(ChatError):
    """An answer ended without being complete; ``code`` says why and is stored with the message."""

    def __init__(self, code: str, detail: str) -> None:
        """Take the stable code (``model_error``, ``model_timeout``, …) and the sentence."""
        self.answer_code = code
        super().__init__(detail)
