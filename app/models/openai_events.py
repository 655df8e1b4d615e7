"""What a server of OpenAI's streaming chat completions says: its events and its failures.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx2
import msgspec
import openai

from app.domain.messages import Usage
from app.models.client import ModelFailed

_TOO_LONG = re.compile(r"context.{0,20}(length|size|window)|too many tokens", re.IGNORECASE)
_WORTH_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class Delta(msgspec.Struct):
    """What an event adds. Thoughts come under one of two names, and not always as text."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: object = None
    reasoning: object = None

    @property
    def thought(self) -> str:
        """A piece of reasoning, or nothing."""
        thought = self.reasoning_content or self.reasoning
        return thought if isinstance(thought, str) else ""


class Choice(msgspec.Struct):
    """One answer of several; only one is ever asked for."""

    delta: Delta | None = None
    finish_reason: str | None = None


class _Count(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Event(msgspec.Struct):
    """What is read of a ``chat.completion.chunk``; members that are not named are skipped."""

    choices: list[Choice] | None = None
    usage: _Count | None = None

    @property
    def counted(self) -> Usage | None:
        """The tokens that were used, where the event says both numbers."""
        used = self.usage
        if used is None or used.prompt_tokens is None or used.completion_tokens is None:
            return None
        return Usage(used.prompt_tokens, used.completion_tokens)


def failure_of(error: openai.APIError, *, streaming: bool) -> ModelFailed:
    """Give our word for the library's error; ``streaming``: the answer had begun to come.

    Nothing of the server's own words is passed on: they may hold a key or an address.
    """
    if isinstance(error, openai.APIStatusError):
        return _turned_away(error)
    again = True
    match error:
        case openai.APITimeoutError(__cause__=httpx2.ConnectTimeout() | httpx2.PoolTimeout()):
            code, detail = "model_unreachable", "The model server cannot be reached"
        case openai.APITimeoutError():
            code, detail = "model_timeout", "The model server took too long"
            again = False
        case openai.APIConnectionError() if streaming:
            code, detail = "model_cut_off", "The connection to the model server was lost"
        case openai.APIConnectionError():
            code, detail = "model_unreachable", "The model server cannot be reached"
        case _:
            code, detail = "model_error", "The model server failed while it was answering"
    return ModelFailed(code, detail, again=again, ails=True)


def _turned_away(error: openai.APIStatusError) -> ModelFailed:
    match error:
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            code, detail = "model_unauthorized", "The model server refused the key"
        case openai.NotFoundError():
            code, detail = "model_not_found", "The model server does not have this model"
        case openai.RateLimitError():
            code, detail = "model_rate_limited", "The model server takes no more questions now"
        case openai.APIStatusError(code="content_filter"):
            code, detail = "model_refused", "The model server's filter refused the question"
        case _:
            code = "model_error"
            detail = f"The model server answered with HTTP status {error.status_code}"
    ails = error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return ModelFailed(
        code,
        detail,
        again=ails or error.status_code in _WORTH_AGAIN,
        after_seconds=retry_after(error.response.headers, now=time.time()),
        ails=ails,
    )


def is_too_long(error: openai.APIError) -> bool:
    """Whether the conversation was more than the model can take.

    OpenAI's code, llama.cpp's type, or one of the sentences of servers that have neither.
    """
    if isinstance(error, openai.APIStatusError) and error.status_code not in {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }:
        return False
    return (
        error.code == "context_length_exceeded"
        or error.type == "exceed_context_size_error"
        or _TOO_LONG.search(error.message) is not None
    )


def context_size(error: openai.APIError) -> int | None:
    """Give the tokens that the model can take, where the server says so (llama.cpp does)."""
    body: Any = error.body
    size = body.get("n_ctx") if isinstance(body, Mapping) else None
    return size if isinstance(size, int) and size > 0 else None


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3) as seconds from ``now``."""
    written = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", written, re.ASCII):
        return float(written)
    try:
        return max(parsedate_to_datetime(written).timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None
