"""Whatever a client writes into a WebSocket is a frame of the contract or a mistake with a name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.web.ws_frames import AuthFrame, CancelFrame, ChatFrame, PingFrame, read_frame

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["chat", "cancel", "auth", "ping"]) | _JSON},
    optional={
        "message": st.text() | _JSON,
        "message_id": st.text() | _JSON,
        "token": st.text() | _JSON,
        "client_message_id": st.text() | _JSON,
        "model": st.text() | _JSON,
        "more": _JSON,
    },
)
_FRAMES = (ChatFrame, CancelFrame, AuthFrame, PingFrame)


@given(_FIELDS)
def test_an_object_is_a_frame_of_the_contract_or_refused(fields: dict[str, Any]) -> None:
    """And a frame that is taken says what was sent, field by field."""
    try:
        frame = read_frame(json.dumps(fields))
    except msgspec.DecodeError:
        return
    assert isinstance(frame, _FRAMES)
    sent = {name: value for name, value in fields.items() if value is not None}
    read = {name: value for name, value in msgspec.to_builtins(frame).items() if value is not None}
    assert read == sent


@given(st.text() | _JSON.map(json.dumps))
@example("[" * 100_000)
@example('{"type":' * 50_000)
@example('"\\ud800"')
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        frame = read_frame(text)
    # What app.web.ws takes for a bad frame.
    except (msgspec.DecodeError, RecursionError):
        return
    assert isinstance(frame, _FRAMES)


@pytest.mark.parametrize(
    "doubled", ['{"type":"ping","type":"chat"}', '{"type":"chat","type":"ping"}']
)
def test_a_frame_of_two_types_does_not_pass_for_both(doubled: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_frame(doubled)
