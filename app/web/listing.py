"""The side bar's list: recent conversations by day, or what a search found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from markupsafe import Markup, escape

from app.domain.messages import SEARCH_MAX_CHARACTERS, Session, check_session_id
from app.web.auth import caller_of
from app.web.parameters import cursor_of, query_value
from app.web.parts import parts_of
from app.web.problems import AnyRequest

if TYPE_CHECKING:
    from app.db.search import Hit

SESSIONS_LISTED: Final = 30
_HITS_LISTED: Final = 50
_WEEK: Final = timedelta(days=7)
_MARGIN: Final = 30
"""Characters at either end of an excerpt, where what was found is not."""
_MARKS: Final = re.compile(r"\*\*|`+|^\s*(?:#{1,6}|[-*+>])\s", re.MULTILINE)
"""What Markdown is written with and a passage reads better without."""


class Group(NamedTuple):
    """Conversations of one time."""

    label: str
    sessions: list[Session]


class Passage(NamedTuple):
    """A part of a message in which a search found what it looked for."""

    message_id: str
    excerpt: Markup


class Found(NamedTuple):
    """A conversation in which a search found something, ready to be shown."""

    session_id: str
    title: Markup
    said_at: str
    """Of the newest that was found in it."""
    passages: list[Passage]


class Listing(NamedTuple):
    """What the side bar lists."""

    query: str
    """What is searched for; empty where nothing is."""
    current: str | None
    """The conversation that is shown beside it."""
    groups: Sequence[Group]
    found: Sequence[Found]
    next_cursor: str | None
    """Where the older conversations begin; None where these are all."""
    is_newest: bool
    """Whether these are the newest conversations, and not older ones."""


async def listing_of(request: AnyRequest, current: str | None) -> Listing:
    """Read what ``?q`` asks for, else the conversations from ``?cursor`` on."""
    chat, caller = parts_of(request).chat, caller_of(request)
    # No longer than what the field takes, and without what no text can have.
    query = " ".join((query_value(request, "q") or "").replace("\x00", " ").split())
    query = query[:SEARCH_MAX_CHARACTERS].strip()
    if query:
        hits = await chat.search(caller, query, _HITS_LISTED)
        return Listing(query, current, (), found_in(hits, query), None, is_newest=True)
    cursor = cursor_of(request, "cursor")
    page = await chat.sessions(caller, SESSIONS_LISTED, cursor)
    groups = list(_groups(page.items, datetime.now(UTC).date()))
    return Listing("", current, groups, (), page.next_cursor, is_newest=cursor is None)


def current_of(request: AnyRequest) -> str | None:
    """Give ``?current``: the conversation that the page with the list shows."""
    current = query_value(request, "current")
    return check_session_id(current) if current else None


def _groups(sessions: Sequence[Session], today: date) -> Iterator[Group]:
    def label(session: Session) -> str:
        day = datetime.fromisoformat(session.updated_at).date()
        if day >= today:
            return "Today"
        if day == today - timedelta(days=1):
            return "Yesterday"
        return "Previous 7 days" if today - day <= _WEEK else "Earlier"

    for name, some in groupby(sessions, label):
        yield Group(name, list(some))


def found_in(hits: Sequence[Hit], query: str) -> list[Found]:
    """Group what was found by conversation, in the order of the hits."""
    found: dict[str, Found] = {}
    for hit in hits:
        title = marked(hit.title or "Untitled", query)
        one = found.setdefault(
            hit.session_id, Found(hit.session_id, title, hit.said_at.isoformat(), [])
        )
        if hit.message_id is not None:
            excerpt = marked(_readable(hit, query), query)
            one.passages.append(Passage(hit.message_id, excerpt))
    return [*found.values()]


def _readable(hit: Hit, query: str) -> str:
    """Cut an excerpt between words, and take the marks of Markdown out."""
    # Unless they are what was looked for.
    text = hit.excerpt if _MARKS.search(query) else _MARKS.sub("", hit.excerpt)
    text = " ".join(text.split())
    if hit.begins_within:
        cut = text.find(" ", 0, _MARGIN)
        text = f"… {text[cut + 1 :]}"
    if hit.ends_within:
        cut = text.rfind(" ", len(text) - _MARGIN)
        text = f"{text[:cut] if cut >= 0 else text} …"
    return text


def marked(text: str, wanted: str) -> Markup:
    """Escape a text and mark what was looked for in it, whatever its case."""
    folded: list[str] = []
    origins: list[int] = []
    for at, character in enumerate(text):
        # One letter may fold to more than one.
        for part in character.casefold():
            folded.append(part)
            origins.append(at)
    whole, needle = "".join(folded), wanted.casefold()
    parts: list[str] = []
    shown = 0
    found = whole.find(needle)
    while found >= 0:
        begin, end = origins[found], origins[found + len(needle) - 1] + 1
        if begin >= shown:
            parts += [str(escape(text[shown:begin])), f"<mark>{escape(text[begin:end])}</mark>"]
            shown = end
        found = whole.find(needle, found + len(needle))
    return Markup("".join([*parts, str(escape(text[shown:]))]))  # noqa: S704
