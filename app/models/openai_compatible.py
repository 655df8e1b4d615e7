"""Any server that speaks OpenAI's streaming chat completions.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, NoReturn

import httpx2
import msgspec
import openai

from app.domain.errors import AnswerFailed
from app.domain.messages import Usage
from app.models.client import Finished, GenerationRequest, Pieces
from app.models.context import window
from app.models.decoding import PieceDecoder


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    """What is read of a ``chat.completion.chunk``; members that are not named are skipped."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None


class OpenAICompatibleModel:
    """One model of one server; its id is the name by which the server knows it."""

    kind: Final = "openai_compatible"
    continues: Final = False

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        model: str,
        connect_seconds: float,
        silence_seconds: float,
        context_characters: int,
    ) -> None:
        """Take the address up to and with its ``/v1``; nothing is sent before the first question.

        Credentials in the address (``https://user:password@host/v1``) take the place of the key.

        Of a conversation the server is given the newest ``context_characters`` code points, in
        whole turns, and always the question.
        """
        self.model_id = model
        self.name = model
        self._context_characters = context_characters
        # Given with each request, so that an account's key that the library finds in the
        # environment is never sent to a server that it was not meant for. The empty strings, and
        # the two values taken back below, are there for the same reason.
        self._authorization = f"Bearer {api_key}" if api_key else openai.Omit()
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            admin_api_key="",
            webhook_secret="",
            max_retries=0,
            timeout=openai.Timeout(connect_seconds, read=silence_seconds),
        )
        self._client.organization = None
        self._client.project = None

    def continues_from(self, request: GenerationRequest) -> bool:
        """Whether nothing is kept: these servers start each answer over."""
        return not request.kept

    async def generate(self, request: GenerationRequest) -> Pieces:
        """See ModelClient.generate."""
        if request.kept:
            raise ValueError("this model cannot go on after a text")
        decoder = PieceDecoder()
        any_text = False
        finish_reason: str | None = None
        usage: Usage | None = None
        async with aclosing(self._events(request)) as events:
            try:
                async for event in events:
                    usage = _counted(event.usage) or usage
                    for choice in event.choices or ():
                        finish_reason = choice.finish_reason or finish_reason
                        said = choice.delta.content if choice.delta else None
                        if said and (piece := decoder.feed(said)):
                            any_text = True
                            yield piece
            except AnswerFailed:
                # Cut between the end of the answer and the end of the stream: it is whole.
                if finish_reason is None:
                    raise
        if left := decoder.end():
            any_text = True
            yield left
        if finish_reason is None:
            raise AnswerFailed("model_cut_off", "The model server's answer broke off")
        if not any_text:
            raise AnswerFailed("empty_answer", "The model server gave an answer without text")
        yield Finished(usage, finish_reason)

    async def close(self) -> None:
        """Close the connections to the server."""
        await self._client.close()

    async def _events(self, request: GenerationRequest) -> AsyncGenerator[_Event, None]:
        turns = window(request.turns, characters=self._context_characters)
        streaming = False
        try:
            # The library's typed call would build an object tree of each event, for 90 µs of CPU
            # apiece and without checking it; below, reading one event into _Event takes 1 µs.
            stream = await self._client.post(
                "/chat/completions",
                body={
                    "model": self.model_id,
                    # Our roles are that protocol's own words.
                    "messages": [
                        {"role": turn.role.value, "content": turn.content} for turn in turns
                    ],
                    "stream": True,
                    "stream_options": {"include_usage": True},
                },
                options={"headers": {"Authorization": self._authorization}},
                cast_to=object,
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            streaming = True
            async with stream:
                async for data in stream:
                    yield msgspec.convert(data, _Event)
        except openai.APIError as error:
            _fail(error, streaming=streaming)
        except (ValueError, msgspec.ValidationError) as error:
            raise AnswerFailed(
                "model_error", "The model server sent an event that cannot be read"
            ) from error


def _counted(usage: _Usage | None) -> Usage | None:
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return Usage(usage.prompt_tokens, usage.completion_tokens)


def _fail(error: openai.APIError, *, streaming: bool) -> NoReturn:
    match error:
        case openai.APITimeoutError(__cause__=httpx2.ConnectTimeout() | httpx2.PoolTimeout()):
            code, detail = "model_unreachable", "The model server cannot be reached"
        case openai.APITimeoutError():
            code, detail = "model_timeout", "The model server took too long"
        case openai.APIConnectionError() if streaming:
            code, detail = "model_cut_off", "The connection to the model server was lost"
        case openai.APIConnectionError():
            code, detail = "model_unreachable", "The model server cannot be reached"
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            code, detail = "model_unauthorized", "The model server refused the key"
        case openai.NotFoundError():
            code, detail = "model_not_found", "The model server does not have this model"
        case openai.RateLimitError():
            code, detail = "model_rate_limited", "The model server takes no more questions now"
        case openai.APIStatusError():
            code = "model_error"
            detail = f"The model server answered with HTTP status {error.status_code}"
        case _:
            code, detail = "model_error", "The model server failed while it was answering"
    raise AnswerFailed(code, detail) from error
