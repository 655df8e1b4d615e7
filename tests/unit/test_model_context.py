"""The part of a conversation that a model is given, and text as a model server sends it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.messages import Role, storable
from app.models.client import Turn
from app.models.context import TURN_TOKENS, estimated_tokens, shortened, window
from app.models.decoding import PieceDecoder

U, A = Role.USER, Role.ASSISTANT

turns = st.builds(Turn, st.sampled_from(Role), st.text(max_size=8))
conversations = st.builds(
    lambda before, question: [*before, Turn(U, question)],
    st.lists(turns, max_size=8),
    st.text(min_size=1, max_size=8),
)


def cost(*turns: Turn) -> int:
    return sum(estimated_tokens(turn.content) + TURN_TOKENS for turn in turns)


def test_all_that_fits_is_given_oldest_first() -> None:
    conversation = [Turn(U, "aa"), Turn(A, "bb"), Turn(U, "cc")]

    assert window(conversation, tokens=cost(*conversation)) == conversation


def test_the_oldest_go_first_and_an_answer_goes_with_its_question() -> None:
    conversation = [Turn(U, "aa"), Turn(A, "bb"), Turn(U, "cc"), Turn(A, "dd"), Turn(U, "ee")]

    assert window(conversation, tokens=cost(*conversation) - 1) == conversation[2:]
    assert window(conversation, tokens=cost(*conversation[2:]) - 1) == conversation[4:]


def test_a_turn_that_does_not_fit_ends_the_window_for_older_ones_too() -> None:
    conversation = [Turn(U, "a"), Turn(A, "b" * 500), Turn(U, "c")]

    assert window(conversation, tokens=60) == [Turn(U, "c")]


@pytest.mark.parametrize("character", ["a", "7", "é", "鯨", "😀"])
def test_a_question_that_is_too_long_by_itself_loses_its_middle(character: str) -> None:
    question = f"BEGIN {character * 5000} END"
    (shorter,) = window([Turn(U, "a"), Turn(A, "b"), Turn(U, question)], tokens=200)

    assert cost(shorter) <= 200
    head, mark, tail = re.split(r"\n\n\[… (\d+) characters left out …\]\n\n", shorter.content)
    assert question.startswith(head)
    assert question.endswith(tail)
    assert head.startswith("BEGIN")
    assert tail.endswith("END")
    assert int(mark) == len(question) - len(head) - len(tail)


def test_an_answer_stopped_before_its_first_word_leaves_one_turn_of_two_questions() -> None:
    conversation = [Turn(U, "one"), Turn(A, ""), Turn(U, "two")]

    assert window(conversation, tokens=100) == [Turn(U, "one\n\ntwo")]


@pytest.mark.parametrize(
    ("text", "tokens"),
    # What the tokenizer of SmolLM2, with its small vocabulary, makes of them.
    [
        ("The quick brown fox jumps over the lazy dog", 9),
        ("31415926535897932384", 20),
        ("def f(x): return x**2 + 1", 12),
        ("我们今天去公园散步", 18),
        ("鯨" * 50, 150),
        ("THE QUICK BROWN FOX JUMPS OVER", 13),
        ("Größere Änderungen überprüfen wir später ausführlich, natürlich.", 31),
    ],
)
def test_the_estimate_is_rather_too_large(text: str, tokens: int) -> None:
    assert tokens <= estimated_tokens(text) <= 3 * tokens


@given(conversations, st.integers(0, 200))
def test_roles_alternate_and_the_question_is_last(conversation: list[Turn], tokens: int) -> None:
    given_turns = window(conversation, tokens=tokens)

    assert given_turns[-1].role is U
    last = shortened(conversation[-1].content, tokens=tokens - TURN_TOKENS)
    assert given_turns[-1].content.endswith(last)
    assert [turn.role for turn in reversed(given_turns)] == [U, A] * (len(given_turns) // 2) + [
        U
    ] * (len(given_turns) % 2)
    assert given_turns[0].role is U
    separators = 2 * len(conversation)
    assert cost(*given_turns) <= max(tokens, cost(Turn(U, last))) + separators


@given(st.text(max_size=300), st.integers(40, 120))
def test_a_text_is_shortened_to_its_budget_and_to_no_less(text: str, tokens: int) -> None:
    shorter = shortened(text, tokens=tokens)

    assert estimated_tokens(shorter) <= tokens
    assert (shorter == text) == (estimated_tokens(text) <= tokens)


any_text = st.text(alphabet=st.characters(categories=["Lu", "Cs", "Cc", "So"]))


@given(st.lists(any_text))
def test_however_a_text_is_cut_its_characters_arrive_whole_and_storable(pieces: list[str]) -> None:
    decoder = PieceDecoder()
    arrived = "".join([decoder.feed(piece) for piece in pieces]) + decoder.end()

    whole = "".join(pieces).encode("utf-16-le", "surrogatepass")
    assert arrived == storable(whole.decode("utf-16-le", "surrogatepass"))


@given(st.text(alphabet=st.characters(categories=["Lu", "So"])), st.data())
def test_cutting_between_two_surrogates_loses_nothing(text: str, data: st.DataObject) -> None:
    units = text.encode("utf-16-le")
    cut = 2 * data.draw(st.integers(0, len(units) // 2))
    halves = [part.decode("utf-16-le", "surrogatepass") for part in (units[:cut], units[cut:])]
    decoder = PieceDecoder()

    assert "".join(map(decoder.feed, halves)) + decoder.end() == text
