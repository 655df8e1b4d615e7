"""Any server that speaks OpenAI's streaming chat completions.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import msgspec
import openai
import structlog

from app.models.client import Finished, GenerationRequest, ModelFailed, Pieces, Reasoning
from app.models.context import TURN_TOKENS, estimated_tokens, window
from app.models.decoding import PieceDecoder
from app.models.openai_events import Choice, Event, context_size, failure_of, is_too_long
from app.models.thinking import ThoughtSplitter

_PROBE_SECONDS = 3.0
_AFTERMATH_SECONDS = 5.0
"""How long the count of tokens and the stream's end may take after the answer's end."""
_MOST_SHORTENINGS = 4
# vLLM's words, and llama.cpp's since 2026: what the last message says is to be gone on with.
_GO_ON: Final = {"continue_final_message": True, "add_generation_prompt": False}
_WRITE_SECONDS = 30.0

logger = structlog.get_logger(__name__)


class OpenAICompatibleModel:
    """One model of one server.

    It keeps no time but for connecting, and tries once: see GuardedModel.
    """

    kind: Final = "openai_compatible"

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        model: str,
        connect_seconds: float,
        context_tokens: int,
        model_id: str | None = None,
        name: str | None = None,
        system_prompt: str | None = None,
        continues: bool | None = None,
    ) -> None:
        """Take the address up to and with its ``/v1``; nothing is sent before the first question.

        Credentials in the address (``https://user:password@host/v1``) take the place of the key.

        ``model`` is the name by which the server knows it, ``model_id`` and ``name`` are ours. Of a
        conversation the server is given the newest whole turns that fit into three quarters of
        ``context_tokens``; the rest is for the answer. ``continues``: whether it goes on with an
        answer that had been begun; None asks the server, where it is llama.cpp's.
        """
        self.model_id = model_id or model
        self.name = name or self.model_id
        self._model = model
        self._context_tokens = context_tokens
        self._system_prompt = system_prompt
        self._goes_on = continues
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
            timeout=openai.Timeout(
                None, connect=connect_seconds, pool=connect_seconds, write=_WRITE_SECONDS
            ),
        )
        self._client.organization = None
        self._client.project = None

    @property
    def continues(self) -> bool:
        """Whether it can, as far as is known."""
        return bool(self._goes_on)

    async def continues_from(self, request: GenerationRequest) -> bool:
        """See ModelClient; a text that takes half of what the model can take is started over."""
        if not request.kept:
            return True
        if self._goes_on is None:
            self._goes_on = await self._probe()
        return bool(self._goes_on) and estimated_tokens(request.kept) <= self._context_tokens // 2

    async def generate(self, request: GenerationRequest) -> Pieces:
        """See ModelClient.generate."""
        if request.kept and not self._goes_on:
            raise ValueError("this model cannot go on after a text")
        reading = _Reading(request)
        async with (
            aclosing(self._events(request)) as events,
            aclosing(_until_the_end(events, reading)) as told,
        ):
            try:
                async for event in told:
                    for choice in event.choices or ():
                        for piece in reading.feed(choice):
                            yield piece
            except ModelFailed:
                # Cut between the end of the answer and the end of the stream: it is whole.
                if reading.finish_reason is None:
                    raise
        for piece in reading.end():
            yield piece
        yield reading.finished()

    async def close(self) -> None:
        """Close the connections to the server."""
        await self._client.close()

    async def _events(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        shortenings, tokens = 0, self._context_tokens
        while True:
            streaming = False
            try:
                # The library's typed call would build an object tree of each event, for 90 µs of
                # CPU apiece and without checking it; reading one event into Event takes 1 µs.
                stream = await self._client.post(
                    "/chat/completions",
                    body=self._body(request, tokens),
                    options={"headers": {"Authorization": self._authorization}},
                    cast_to=object,
                    stream=True,
                    stream_cls=openai.AsyncStream[object],
                )
                streaming = True
                async with stream:
                    async for data in stream:
                        yield msgspec.convert(data, Event)
                return
            except openai.APIError as error:
                if streaming or shortenings == _MOST_SHORTENINGS or not is_too_long(error):
                    raise failure_of(error, streaming=streaming) from error
                tokens = self._fewer(tokens, context_size(error))
                shortenings += 1
            except (ValueError, msgspec.ValidationError) as error:
                raise ModelFailed(
                    "model_unreadable", "The model server sent what cannot be read", ails=True
                ) from error

    def _body(self, request: GenerationRequest, tokens: int) -> dict[str, Any]:
        system = self._system_prompt
        budget = tokens - tokens // 4
        for taken in (system, request.kept):
            budget -= estimated_tokens(taken) + TURN_TOKENS if taken else 0
        messages = [{"role": "system", "content": system}] if system else []
        # Our roles are that protocol's own words.
        messages += [
            {"role": turn.role.value, "content": turn.content}
            for turn in window(request.turns, tokens=budget)
        ]
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.kept:
            messages.append({"role": "assistant", "content": request.kept})
            body |= _GO_ON
        return body

    def _fewer(self, tokens: int, size: int | None) -> int:
        """Give what to take the model for, which was not able to take ``tokens``.

        What the server says of itself is remembered. Without its word, or where our count of this
        one conversation was too small, half will do: for this one only.
        """
        if size is None or size >= tokens:
            return tokens // 2
        if size < self._context_tokens:
            logger.warning("model_context_smaller", model=self.model_id, tokens=size)
            self._context_tokens = size
        return size

    async def _probe(self) -> bool | None:
        """Ask whether an assistant's last message is gone on with; None where nobody answers.

        llama.cpp shows what its template makes of a conversation (``POST /apply-template``, beside
        ``/v1``). A text that stands at the very end of that, to the last space, is what the model
        goes on after. Any other server has no such address, or shows something else.
        """
        begun = "So far: 1, 2,\n3 and "
        address = self._client.base_url
        root = address.path.rstrip("/").removesuffix("/v1")
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                shown = await self._client.post(
                    str(address.copy_with(path=f"{root}/apply-template")),
                    body={
                        "messages": [
                            {"role": "user", "content": "Count."},
                            {"role": "assistant", "content": begun},
                        ],
                        **_GO_ON,
                    },
                    options={"headers": {"Authorization": self._authorization}},
                    cast_to=object,
                )
        except openai.APIStatusError as error:
            return None if failure_of(error, streaming=False).again else False
        except openai.APIConnectionError:
            return None
        except TimeoutError:
            return None
        except (openai.APIError, ValueError):
            return False
        prompt = shown.get("prompt") if isinstance(shown, dict) else None
        proved = isinstance(prompt, str) and prompt.endswith(begun)
        logger.info("model_probed", model=self.model_id, continues=proved)
        return proved


class _Reading:
    """What has come of one answer."""

    def __init__(self, request: GenerationRequest) -> None:
        self.finish_reason: str | None = None
        self._usage_of: Event | None = None
        self._any_text = bool(request.kept)
        self._refused = False
        self._text = PieceDecoder()
        self._thought = PieceDecoder()
        # What was begun is past its thoughts.
        self._splitter = None if request.kept else ThoughtSplitter()

    def note(self, event: Event) -> None:
        """Keep the count of tokens; a later one is more complete."""
        if event.counted is not None:
            self._usage_of = event

    def feed(self, choice: Choice) -> list[str | Reasoning]:
        """Give the pieces that a choice adds."""
        self.finish_reason = choice.finish_reason or self.finish_reason
        delta = choice.delta
        if delta is None:
            return []
        pieces: list[str | Reasoning] = []
        if thought := self._thought.feed(delta.thought):
            pieces.append(Reasoning(thought))
        if delta.refusal:
            # The model's own words to the person: shown, as the answer that it is.
            self._refused = True
        for said in (delta.content, delta.refusal):
            if said and (piece := self._text.feed(said)):
                pieces += self._told(piece)
        return pieces

    def end(self) -> list[str | Reasoning]:
        """Give what was held back."""
        pieces: list[str | Reasoning] = []
        if thought := self._thought.end():
            pieces.append(Reasoning(thought))
        if left := self._text.end():
            pieces += self._told(left)
        if self._splitter is not None:
            held = self._splitter.end()
            self._any_text = self._any_text or any(isinstance(piece, str) for piece in held)
            pieces += held
        return pieces

    def finished(self) -> Finished:
        """Give the end of the answer, or raise ModelFailed where it is none to be content with."""
        if self._refused:
            raise ModelFailed("model_refused", "The model declined to answer")
        if self.finish_reason == "content_filter":
            raise ModelFailed("model_refused", "The model server's filter ended the answer")
        if self.finish_reason is None:
            raise ModelFailed(
                "model_unended", "The model server's answer ended without saying so", again=True
            )
        if not self._any_text:
            raise ModelFailed("empty_answer", "The model server gave an answer without text")
        usage = None if self._usage_of is None else self._usage_of.counted
        return Finished(usage, self.finish_reason)

    def _told(self, piece: str) -> list[str | Reasoning]:
        told: list[str | Reasoning] = [piece]
        if self._splitter is not None:
            told = self._splitter.feed(piece)
        self._any_text = self._any_text or any(isinstance(one, str) for one in told)
        return told


async def _until_the_end(
    events: AsyncGenerator[Event, None], reading: _Reading
) -> AsyncGenerator[Event, None]:
    """Give the events; after the answer's end, only those that come soon."""
    while True:
        limit = asyncio.timeout(None if reading.finish_reason is None else _AFTERMATH_SECONDS)
        try:
            async with limit:
                event = await anext(events, None)
        except TimeoutError:
            if not limit.expired():
                raise
            return
        if event is None:
            return
        reading.note(event)
        yield event
