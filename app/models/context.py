"""The part of a conversation that a model is given."""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.domain.messages import Role
from app.models.client import Turn

TURN_TOKENS = 8
"""What a chat template adds to a turn, at most: its role and its marks."""

_LETTERS = re.compile(r"[a-z ]+", re.ASCII)
_MARK = "\n\n[… {} characters left out …]\n\n"


def estimated_tokens(text: str) -> int:
    """Give about as many tokens as a tokenizer makes of a text, more rather than fewer.

    Small letters and spaces are counted at three characters a token (a small vocabulary makes four
    or five of English), all else at a token for each byte in UTF-8, of which byte-level tokenizers
    never make more. Only long words that are none, such as keys, have more tokens than this says.
    """
    letters = sum(len(found) for found in _LETTERS.findall(text))
    return -(-letters // 3) + len(text.encode("utf-8", "surrogatepass")) - letters


def shortened(text: str, *, tokens: int) -> str:
    """Give a text that has at most so many tokens: what is too much goes from its middle.

    A question's begin says what it is about and its end what is asked. The gap is marked, so that
    the model does not take the halves for one sentence.
    """
    if estimated_tokens(text) <= tokens:
        return text
    room = tokens - estimated_tokens(_MARK.format(len(text)))
    low, high = 0, len(text)
    while low < high:  # how many characters stay
        middle = (low + high + 1) // 2
        head, tail = _ends(text, middle)
        if estimated_tokens(head) + estimated_tokens(tail) <= room:
            low = middle
        else:
            high = middle - 1
    head, tail = _ends(text, low)
    return f"{head}{_MARK.format(len(text) - low)}{tail}"


def window(turns: Sequence[Turn], *, tokens: int) -> list[Turn]:
    """Give the newest turns that fit, oldest first; the last one, the question, always does.

    Turns are kept whole, but for a question that is too long by itself: that one is shortened. The
    window never opens with an answer whose question fell out of it, turns without text are left
    out, and neighbours of one role become one turn: many chat templates fail for a conversation in
    which the roles do not alternate, as they do not after an answer that was stopped before its
    first word.
    """
    question = turns[-1]
    question = question._replace(content=shortened(question.content, tokens=tokens - TURN_TOKENS))
    room = tokens - _cost(question)
    newest_first = [question]
    for turn in reversed(turns[:-1]):
        if not turn.content:
            continue
        room -= _cost(turn)
        if room < 0:
            break
        newest_first.append(turn)
    while len(newest_first) > 1 and newest_first[-1].role is Role.ASSISTANT:
        newest_first.pop()
    chosen: list[Turn] = []
    for turn in reversed(newest_first):
        if chosen and chosen[-1].role is turn.role:
            chosen[-1] = Turn(turn.role, f"{chosen[-1].content}\n\n{turn.content}")
        else:
            chosen.append(turn)
    return chosen


def _cost(turn: Turn) -> int:
    return estimated_tokens(turn.content) + TURN_TOKENS


def _ends(text: str, count: int) -> tuple[str, str]:
    tail = count // 2
    return text[: count - tail], text[len(text) - tail :]
