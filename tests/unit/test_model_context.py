"""The part of a conversation that a model is given, and text as a model server sends it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.domain.messages import Role, storable
from app.models.client import Turn
from app.models.context import window
from app.models.decoding import PieceDecoder

U, A = Role.USER, Role.ASSISTANT

turns = st.builds(Turn, st.sampled_from(Role), st.text(max_size=8))
conversations = st.builds(
    lambda before, question: [*before, Turn(U, question)],
    st.lists(turns, max_size=8),
    st.text(min_size=1, max_size=8),
)


def test_all_that_fits_is_given_oldest_first() -> None:
    conversation = [Turn(U, "aa"), Turn(A, "bb"), Turn(U, "cc")]

    assert window(conversation, characters=6) == conversation


def test_the_oldest_go_first_and_an_answer_goes_with_its_question() -> None:
    conversation = [Turn(U, "aa"), Turn(A, "bb"), Turn(U, "cc"), Turn(A, "dd"), Turn(U, "ee")]

    assert window(conversation, characters=9) == conversation[2:]
    assert window(conversation, characters=5) == conversation[4:]


def test_a_turn_that_does_not_fit_ends_the_window_for_older_ones_too() -> None:
    conversation = [Turn(U, "a"), Turn(A, "b" * 50), Turn(U, "c")]

    assert window(conversation, characters=10) == [Turn(U, "c")]


def test_the_question_is_given_even_if_it_alone_is_too_long() -> None:
    assert window([Turn(U, "a"), Turn(A, "b"), Turn(U, "c" * 50)], characters=10) == [
        Turn(U, "c" * 50)
    ]


def test_an_answer_stopped_before_its_first_word_leaves_one_turn_of_two_questions() -> None:
    conversation = [Turn(U, "one"), Turn(A, ""), Turn(U, "two")]

    assert window(conversation, characters=100) == [Turn(U, "one\n\ntwo")]


@given(conversations, st.integers(0, 60))
def test_roles_alternate_and_the_question_is_last(
    conversation: list[Turn], characters: int
) -> None:
    given_turns = window(conversation, characters=characters)

    assert given_turns[-1].role is U
    assert given_turns[-1].content.endswith(conversation[-1].content)
    assert [turn.role for turn in reversed(given_turns)] == [U, A] * (len(given_turns) // 2) + [
        U
    ] * (len(given_turns) % 2)
    assert given_turns[0].role is U
    separators = 2 * len(conversation)
    total = sum(len(turn.content) for turn in given_turns)
    assert total <= max(characters, len(conversation[-1].content)) + separators


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
