"""Following a session for its page, which goes on from a text that the connection has not seen."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

from app.chat.service import Chat
from app.domain.caller import Caller
from app.domain.frames import Entries, Frame
from app.domain.messages import Message
from app.web.fragments import FragmentEncoder
from app.web.stream import Follows

StateReader: TypeAlias = Callable[[], Awaitable[list[Message]]]

_LATEST: Final = 10
"""Messages among which an answer that is being written is looked for: it is the last one, or was
a moment ago."""


class PageFollower:
    """A follower that tells the encoder the text so far before the first chunk that adds to it.

    The page has been rendered, or was left by a connection before, in the middle of an answer. The
    text before that position decides what a chunk changes, and the log has it no more: it is read
    once, from the state, which reaches at least as far.
    """

    def __init__(
        self,
        follower: Follows,
        encoder: FragmentEncoder,
        read_state: StateReader,
    ) -> None:
        """Take the follower, what encodes its frames, and what reads the newest messages."""
        self._follower = follower
        self._encoder = encoder
        self._read_state = read_state

    async def frames(self) -> AsyncIterator[Frame]:
        """Give the follower's frames; an error in reading the state ends them."""
        frames = self._follower.frames()
        if not isinstance(frames, AsyncGenerator):
            raise TypeError("frames must be closed with the stream")
        async with aclosing(frames):
            async for frame in frames:
                if isinstance(frame, Entries) and self._encoder.lacks(frame):
                    self._encoder.learn(frame, await self._read_state())
                yield frame

    async def close(self) -> None:
        """Give the connection's slot back."""
        await self._follower.close()


def state_reader(chat: Chat, caller: Caller, session_id: str) -> StateReader:
    """Give what reads the newest messages, with the text so far of one that is being written."""

    async def read() -> list[Message]:
        return (await chat.history(caller, session_id, _LATEST)).items

    return read
