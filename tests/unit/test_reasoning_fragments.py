"""Reasoning in the fragments that keep a page current."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import Chunk, Entry, Start, Thought, new_entry
from app.domain.frames import Entries, History, HistoryReason
from app.domain.messages import AnswerError, Message, Role, Status
from app.domain.position import Position
from app.models.build import build_models
from app.web.assets import Assets
from app.web.fragments import FragmentEncoder
from app.web.model_choice import ModelChoice
from app.web.rendering import Rendering

_APP = Path(__file__).parents[2] / "app"
_ANSWER = "01a209d8-ec17-77d5-8cf5-2b4c56bc6f81"
_RENDERING = Rendering(_APP / "templates", Assets(_APP / "static"), ModelChoice(build_models()))
_TARGET = f'<hx-upsert hx-target="#m-{_ANSWER}.open > .reasoning > .thoughts">'
_RUN = re.compile(rf'<span id="m-{_ANSWER}-t(\d+)">(.*?)</span>', re.DOTALL)


@pytest.fixture
def encoder() -> FragmentEncoder:
    return FragmentEncoder(_RENDERING, "s")


def _message(**fields: Any) -> Message:
    values: dict[str, Any] = {
        "message_id": _ANSWER,
        "session_id": "s",
        "role": Role.ASSISTANT,
        "content": "",
        "status": Status.STREAMING,
        "is_complete": False,
        "attempt": 1,
        "model": "demo",
        "created_at": "2026-01-31T09:05:00.123Z",
    }
    return Message(**values | fields)


def _entries(*told: Message | Start | Chunk | Thought) -> Entries:
    made = [new_entry(data) for data in told]
    return Entries(
        [Entry(Position(7, seq), entry.type, entry.data) for seq, entry in enumerate(made)]
    )


def _thought(offset: int, text: str, attempt: int = 1) -> Thought:
    return Thought(_ANSWER, attempt, offset, text)


def _html(encoder: FragmentEncoder, *told: Message | Start | Chunk | Thought) -> str:
    return encoder.fragment(_entries(*told)).html.decode()


def _runs(html: str) -> dict[int, str]:
    return {int(number): unescape(text) for number, text in _RUN.findall(html)}


def _begin(encoder: FragmentEncoder, reasoning: str | None = None) -> None:
    _html(encoder, Start(_ANSWER, 1, "demo", "", reasoning))


def test_pieces_of_a_frame_become_one_change_of_the_last_run(encoder: FragmentEncoder) -> None:
    _begin(encoder)
    html = _html(encoder, _thought(0, "a <b>"), _thought(5, "\n **c**"))
    assert html == f'{_TARGET}<span id="m-{_ANSWER}-t0">a &lt;b&gt;\n **c**</span></hx-upsert>'


def test_what_is_sent_does_not_grow_with_what_was_thought(encoder: FragmentEncoder) -> None:
    _begin(encoder)
    sizes = [len(_html(encoder, _thought(5 * n, "word "))) for n in range(2000)]
    assert max(sizes[1000:]) <= max(sizes[:1000]) + 2


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1),
    st.integers(0, 100),
)
def test_a_page_that_is_kept_current_shows_what_a_fresh_one_does(
    pieces: list[str], cut: int
) -> None:
    """Also where the connection is lost in between, and the next one knows nothing."""
    shown: dict[int, str] = {}
    offset = 0
    encoder = FragmentEncoder(_RENDERING, "s")
    _begin(encoder)
    for number, piece in enumerate(pieces):
        if number == cut % len(pieces):
            encoder = FragmentEncoder(_RENDERING, "s")
        frame = _entries(_thought(offset, piece))
        if encoder.lacks(frame):
            whole = "".join(pieces) + "newer"
            encoder.learn(frame, [_message(reasoning=whole, content="Newer too")])
        shown |= _runs(encoder.fragment(frame).html.decode())
        offset += len(piece)
    fresh = _RENDERING.article(_message(reasoning="".join(pieces)))
    assert shown == _runs(fresh)
    assert "".join(shown.values()) == "".join(pieces)


def test_they_are_folded_into_an_article_of_the_same_frame(encoder: FragmentEncoder) -> None:
    html = _html(
        encoder,
        Start(_ANSWER, 2, "demo", "So", "Hm."),
        _thought(3, " Well.", 2),
        Chunk(_ANSWER, 2, 0, 2, " it is"),
    )
    assert _TARGET not in html
    assert _runs(html) == {0: "Hm. Well."}
    html = _html(encoder, _thought(3, " Well.", 2), _thought(9, " Yes.", 2))
    assert _runs(html) == {0: "Hm. Well. Yes."}


def test_an_attempt_that_starts_over_takes_them_back(encoder: FragmentEncoder) -> None:
    _begin(encoder)
    html = _html(encoder, _thought(0, "lost"), Start(_ANSWER, 2, "demo", ""))
    assert _runs(html) == {}
    assert "lost" not in html


def test_an_answer_that_is_final_takes_no_more(encoder: FragmentEncoder) -> None:
    final = _message(status=Status.COMPLETE, is_complete=True, content="It is", reasoning="Hm.")
    frame = _entries(final, _thought(0, "Hm."))
    assert not encoder.lacks(frame)
    html = encoder.fragment(frame).html.decode()
    assert _TARGET not in html
    assert _runs(html) == {0: "Hm."}
    # Folded: whether it is open is the reader's.
    assert "<details" in html
    assert " open>" not in html


@pytest.mark.parametrize(
    "state",
    [[], [_message(reasoning="other", attempt=1)], [_message(reasoning="so Hm.", attempt=2)]],
)
def test_what_follows_on_thoughts_that_nobody_can_tell_waits(
    encoder: FragmentEncoder, state: list[Message]
) -> None:
    frame = _entries(_thought(3, "Hm."))
    assert encoder.lacks(frame)
    encoder.learn(frame, state)
    assert not encoder.lacks(frame)
    assert encoder.fragment(frame).html == b""
    encoder.fragment(History([_message(reasoning="so Hm.")], "7-1", HistoryReason.EPOCH))
    assert _runs(_html(encoder, _thought(6, " Yes."))) == {0: "so Hm. Yes."}


def test_text_and_thoughts_are_learned_each_for_itself(encoder: FragmentEncoder) -> None:
    """A state is newer than what is told: how much text there was beside a thought, it hides."""
    state = [_message(reasoning="Hm.", content="It is so")]
    frame = _entries(_thought(0, "Hm."))
    encoder.learn(frame, state)
    encoder.fragment(frame)
    frame = _entries(Chunk(_ANSWER, 1, 0, 0, "It"))
    assert encoder.lacks(frame)
    encoder.learn(frame, state)
    html = encoder.fragment(frame).html.decode()
    assert ">It</p>" in html
    assert "is so" not in html


def test_an_answer_without_thoughts_has_no_place_for_them() -> None:
    final = _message(status=Status.COMPLETE, is_complete=True, content="It is")
    assert "details" not in _RENDERING.article(final)
    asked = _message(role=Role.USER, status=Status.COMPLETE, is_complete=True, content="Is it?")
    assert "details" not in _RENDERING.article(asked)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "The answer is complete."),
        (AnswerError("length_stopped", "…"), "The answer was cut off by its length limit."),
    ],
)
def test_who_listens_is_told_whether_the_answer_is_whole(
    encoder: FragmentEncoder, error: AnswerError | None, said: str
) -> None:
    final = _message(status=Status.COMPLETE, is_complete=True, content="It is", error=error)
    html = _html(encoder, final)
    (announced,) = re.findall(r'hx-target="#announcement"[^>]*>(.*?)</hx-partial>', html, re.DOTALL)
    assert announced.strip() == said
