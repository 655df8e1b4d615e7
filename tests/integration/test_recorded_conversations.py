"""``docs/protocol.md`` shows conversations that really happen, word for word."""

from __future__ import annotations

from pathlib import Path

from scripts.record_conversations import PROTOCOL, parts_of, record
from tests.support.web import serving


async def test_what_the_protocol_shows_is_what_a_node_says(tmp_path: Path) -> None:
    """Rewrite it with ``.venv/bin/python -m scripts.record_conversations``."""
    async with serving(tmp_path) as node:
        said = await record(node.url)
    text = PROTOCOL.read_text("utf-8")
    assert {name: parts_of(text, name)[1] for name in said} == said
