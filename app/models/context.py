"""The part of a conversation that a model is given."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.messages import Role
from app.models.client import Turn


def window(turns: Sequence[Turn], *, characters: int) -> list[Turn]:
    """Give the newest turns that fit, oldest first; the last one, the question, always does.

    Turns are kept whole. The window never opens with an answer whose question fell out of it,
    turns without text are left out, and neighbours of one role become one turn: many chat
    templates fail for a conversation in which the roles do not alternate, as they do not after
    an answer that was stopped before its first word.
    """
    question = turns[-1]
    room = characters - len(question.content)
    newest_first = [question]
    for turn in reversed(turns[:-1]):
        room -= len(turn.content)
        if room < 0:
            break
        if turn.content:
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
