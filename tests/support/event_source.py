"""The npm package ``eventsource``, vendored and unchanged, in a process of Node.js."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.contract_client import ContractBreachError, ContractClient
from tests.support.waiting import eventually

_HERE = Path(__file__).parent
_LINE_BYTES = 4 * 1024 * 1024


@dataclass
class ForeignEventSource:
    """What the program was given so far, held to the contract as it came."""

    client: ContractClient = field(default_factory=ContractClient)
    events: list[str] = field(default_factory=list)
    """The types of all events, control frames too."""
    connection: list[tuple[str, int | None]] = field(default_factory=list)
    """``open``, ``lost`` (it will come back) and ``closed`` (it will not), with the status."""
    breach: ContractBreachError | None = None

    async def complete(self, message_id: str, seconds: float = 30.0) -> str:
        """Wait until a message is final here; give its text."""
        await self.eventually(
            lambda: self.client.is_complete(message_id), "the final message", seconds
        )
        return self.client.text(message_id)

    async def eventually(self, condition: Any, expected: str, seconds: float = 30.0) -> None:
        """Wait for a condition on what was given; a breach of the contract ends it at once."""
        await eventually(
            lambda: self.breach is not None or condition(),
            f"{expected}; given {self.events[-5:]}, {self.connection[-5:]}",
            seconds=seconds,
        )
        if self.breach is not None:
            raise self.breach

    def take(self, line: bytes) -> None:
        """Take one line of the program."""
        said = json.loads(line)
        if "connection" in said:
            self.connection.append((said["connection"], said.get("status")))
            return
        self.events.append(said["event"])
        try:
            self.client.apply(said["id"], said["event"], said["data"])
        except ContractBreachError as error:
            self.breach = self.breach or error


@asynccontextmanager
async def npm_event_source(url: str) -> AsyncIterator[ForeignEventSource]:
    """Follow ``url``; skip where there is no Node.js, fail where there must be one (CI)."""
    node = shutil.which("node")
    if node is None:
        message = "Node.js is missing: install the package «nodejs» (18 or newer) to run this test"
        if os.environ.get("CI"):
            pytest.fail(f"{message} (and CI is set)")
        pytest.skip(message)
    process = await asyncio.create_subprocess_exec(
        node,
        str(_HERE / "event_source.cjs"),
        url,
        env=os.environ | {"NODE_PATH": str(_HERE / "vendor")},
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    source = ForeignEventSource()
    reading = asyncio.ensure_future(_read(process, source))
    try:
        yield source
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _read(process: asyncio.subprocess.Process, source: ForeignEventSource) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        source.take(line)
