"""What an attempt at an answer keeps of those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from app.db.results import Begun
    from app.streams.session_log import ActiveAnswer


class Kept(NamedTuple):
    """What was said and thought of an answer before."""

    text: str = ""
    reasoning: str = ""


class Remembered(NamedTuple):
    """What this worker knows of its own attempt after the log was lost."""

    attempt: int
    kept: Kept


def kept_of(begun: Begun, active: ActiveAnswer | None, remembered: Remembered | None) -> Kept:
    """Give what there is to go on from; nothing where the model had only been thinking."""
    if active is not None:
        kept = Kept(active.text, active.reasoning)
    else:
        # Where the log was lost: what the answer had before it was to be gone on with.
        kept = Kept(begun.message.content, begun.message.reasoning or "")
    if (
        remembered is not None
        and remembered.attempt + 1 == begun.attempt
        # The log was lost with the text in it, and nobody else made an attempt since: what this
        # worker had in the log is what clients have seen.
        and len(remembered.kept.text) > len(kept.text)
    ):
        kept = remembered.kept
    # No server goes on in the middle of a thought.
    return kept if kept.text else Kept()
