"""Taking what people wrote out of a record, and leaving that there was one.

This is the one place that knows what of a record is content. Whatever keeps records for good, as an
audit log does, has to take it out by the same rule.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

_CONTENT: Final = ("content", "errorDetail")
"""Fields of a record that repeat what was said; a model server's complaint may."""

_TITLE: Final = "title"
"""The same of its ``metadata``: a title is the beginning of a question, or was typed."""

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def redacted(payload: bytes) -> bytes | None:
    """Give a record without content, marked ``redacted`` in its metadata where it has such.

    None where it has no content, as after the first time. Raises msgspec.DecodeError for what is
    no record.
    """
    record = _decode(payload)
    metadata = record.get("metadata")
    is_redacted = False
    for name in _CONTENT:
        if record.get(name) is not None:
            record[name] = None
            is_redacted = True
    if isinstance(metadata, dict):
        if metadata.get(_TITLE):
            metadata[_TITLE] = None
            is_redacted = True
        if is_redacted:
            metadata["redacted"] = True
    return msgspec.json.encode(record) if is_redacted else None
