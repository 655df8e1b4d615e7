"""The Lua scripts, each one atomic state transition, and how they are sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import hiredis
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from app.streams.link import Pipe

Argument = str | bytes | int


class Script(NamedTuple):
    """A script's text and the digest under which the server knows it."""

    text: str
    digest: str


class Call(NamedTuple):
    """One call of a script."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]


def load(name: str, after: str = "log") -> Script:
    """Read ``lua/<name>.lua`` with the functions of ``<after>.lua`` before it."""
    folder = resources.files("app.streams") / "lua"
    text = (folder / f"{after}.lua").read_text() + "\n" + (folder / f"{name}.lua").read_text()
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


async def run(redis: Redis, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
    """Run one script; the server is given its text when it does not know it (restart, flush)."""
    try:
        return await redis.evalsha(script.digest, len(keys), *keys, *arguments)
    except NoScriptError:
        return await redis.eval(script.text, len(keys), *keys, *arguments)


async def run_all(pipe: Pipe, calls: Sequence[Call]) -> list[Any]:
    """Run many scripts in one round trip, each atomic for itself; replies in order.

    A reply may be an exception. Calls that a restarted server did not know are sent once more
    with the text; they had not run.
    """
    replies = await pipe.exchange(
        [("EVALSHA", digest, len(keys), *keys, *rest) for (_, digest), keys, rest in calls]
    )
    unknown = [
        at
        for at, reply in enumerate(replies)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")
    ]
    if unknown:
        missed = [calls[at] for at in unknown]
        again = await pipe.exchange(
            [("EVAL", text, len(keys), *keys, *rest) for (text, _), keys, rest in missed]
        )
        for at, reply in zip(unknown, again, strict=True):
            replies[at] = reply
    return replies
