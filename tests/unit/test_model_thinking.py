"""Thoughts written into an answer are told apart from it, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.models.client import Reasoning
from app.models.thinking import ThoughtSplitter


def split(*pieces: str) -> tuple[str, str]:
    splitter = ThoughtSplitter()
    told = [one for piece in pieces for one in splitter.feed(piece)] + splitter.end()
    assert all(one.text if isinstance(one, Reasoning) else one for one in told), "an empty piece"
    thoughts = "".join(one.text for one in told if isinstance(one, Reasoning))
    return thoughts, "".join(one for one in told if isinstance(one, str))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>Hm. </think>\n\nYes.", ("Hm. ", "Yes.")),
        ("\n<think>Hm.</think>Yes.", ("Hm.", "Yes.")),
        ("<think></think>Yes.", ("", "Yes.")),
        ("<think>never closed", ("never closed", "")),
        ("<think>a </thinker> b</think>c", ("a </thinker> b", "c")),
        ("Yes.", ("", "Yes.")),
        ("  indented", ("", "  indented")),
        ("The tag <think> is text </think> here.", ("", "The tag <think> is text </think> here.")),
        ("<think", ("", "<think")),
        ("<thinker>", ("", "<thinker>")),
        ("<think>a</think>b<think>c</think>", ("a", "b<think>c</think>")),
        ("", ("", "")),
    ],
)
def test_only_a_leading_block_is_thought_however_it_is_cut(
    text: str, expected: tuple[str, str]
) -> None:
    assert split(text) == expected
    assert split(*text) == expected
    for cut in range(len(text)):
        assert split(text[:cut], text[cut:]) == expected


@given(st.lists(st.text(alphabet="<>/think \n", min_size=1, max_size=6)))
def test_a_text_without_a_leading_tag_passes_unchanged(pieces: list[str]) -> None:
    text = "".join(pieces)
    if not text.lstrip().startswith("<think>"):
        assert split(*pieces) == ("", text)


def test_text_does_not_wait_for_what_cannot_come() -> None:
    splitter = ThoughtSplitter()

    assert splitter.feed("Yes") == ["Yes"]
    assert splitter.feed(" <think>") == [" <think>"]


def test_a_thought_is_told_while_it_is_thought() -> None:
    splitter = ThoughtSplitter()

    assert splitter.feed("<think>Let me") == [Reasoning("Let me")]
    assert splitter.feed(" see <") == [Reasoning(" see ")]
    assert splitter.feed("b>") == [Reasoning("<b>")]
