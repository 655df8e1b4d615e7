"""The frames of a session as HTML for a page that shows it: the encoder behind htmx's hx-sse.

Each frame becomes at most one unnamed event, whose data is a set of partial updates, and carries
the position that the page stands at after it. Every update is addressed by the message's element
id and yields the same page when it is applied twice:

* an article replaces the one with its id, or is put at the end (``hx-upsert``);
* the text of chunks is added to the article of an answer that is still open, and to no other.

htmx finds the targets of all partials before it applies the first, so an article and a piece of
its text never go into one event: chunks that follow their article are folded into it here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from app.domain.events import Chunk, Entry, EventType, SessionChanged, Start
from app.domain.frames import Bye, ByeReason, Entries, Frame, Heartbeat, History, Welcome
from app.domain.messages import Message, Role, Status
from app.web.rendering import Rendering, verbatim

END: Final = b"end"
"""Name of the event upon which the page stops connecting (``hx-sse:close``)."""

_read_chunk = msgspec.json.Decoder(Chunk).decode
_read_message = msgspec.json.Decoder(Message).decode
_read_start = msgspec.json.Decoder(Start).decode
_read_session = msgspec.json.Decoder(SessionChanged).decode


def added_text(entry: Entry) -> bytes:
    """Give a chunk's message id, a NUL and its text as HTML; hand it to ``Entry.form``."""
    chunk = _read_chunk(entry.data)
    return b"%s\0%s" % (chunk.message_id.encode(), str(verbatim(chunk.chunk)).encode())


@dataclass(slots=True)
class _Update:
    """What a run of entries comes to."""

    articles: dict[str, Message] = field(default_factory=dict)
    added: dict[str, list[bytes]] = field(default_factory=dict)
    session: SessionChanged | None = None
    activity: Activity | None = None


@dataclass(frozen=True, slots=True)
class Activity:
    """What the composer and the status line say of the session."""

    status: Status | None
    """Of the answer: None while it is awaited and its id is not known yet."""
    message_id: str | None = None

    @property
    def is_answering(self) -> bool:
        """Whether there is something to stop."""
        return self.status is None or not self.status.is_final


def activity_of(messages: list[Message] | tuple[Message, ...]) -> Activity:
    """Say what a session that shows these messages is doing."""
    if not messages:
        return Activity(Status.COMPLETE)
    last = messages[-1]
    if last.role is Role.USER:
        # Its answer begins any moment: the two are committed together.
        return Activity(None)
    return Activity(last.status, last.message_id)


class FragmentEncoder:
    """Encodes the frames of one session for its page."""

    def __init__(self, rendering: Rendering, session_id: str) -> None:
        """Take the templates and the session that is shown."""
        self._rendering = rendering
        self._session_id = session_id

    def frame(self, frame: Frame) -> bytes:
        """Encode one frame as one write; nothing for a ``bye`` after which one comes back."""
        match frame:
            case Entries():
                return _event(str(frame.position), self._entries(frame))
            case History():
                return _event(frame.position, self._history(frame))
            case Heartbeat():
                # Named, not a comment: the page notices a connection that has gone silent.
                return b"event: heartbeat\ndata:\n\n"
            case Welcome():
                return b"event: welcome\ndata: %s\n\n" % msgspec.json.encode(frame)
            case Bye():
                return self._bye(frame)

    def gone(self) -> bytes:
        """Say that the session was deleted, and end for good."""
        return _event(None, self._rendering.render("gone.html")) + _end()

    def _bye(self, bye: Bye) -> bytes:
        if bye.reason is ByeReason.SESSION_DELETED:
            return self.gone()
        return b"" if bye.reconnect else _end()

    def _history(self, history: History) -> bytes:
        return self._rendering.render(
            "history.html",
            messages=history.messages,
            activity=activity_of(tuple(history.messages)),
            session_id=self._session_id,
        )

    def _entries(self, frame: Entries) -> bytes:
        update = _Update()
        for entry in frame.entries:
            _apply(update, entry)
        if not update.articles and update.session is None and update.activity is None:
            return _texts(update.added)
        return self._rendering.render(
            "entries.html",
            articles=list(update.articles.values()),
            session=update.session,
            activity=update.activity,
            session_id=self._session_id,
        ) + _texts(update.added)


def _apply(update: _Update, entry: Entry) -> None:
    match entry.type:
        case EventType.CHUNK:
            _add_chunk(update, entry)
        case EventType.START:
            begun = _begun(_read_start(entry.data))
            _replace_article(update, begun)
            update.activity = Activity(begun.status, begun.message_id)
        case EventType.MESSAGE:
            message = _read_message(entry.data)
            _replace_article(update, message)
            update.activity = activity_of((message,))
        case EventType.SESSION:
            update.session = _read_session(entry.data)
        case _:
            # A type that a later version of the log knows: the page shows the rest.
            pass


def _replace_article(update: _Update, message: Message) -> None:
    update.articles[message.message_id] = message
    update.added.pop(message.message_id, None)


def _add_chunk(update: _Update, entry: Entry) -> None:
    message_id, _, text = entry.form(added_text).partition(b"\0")
    article = update.articles.get(message_id.decode())
    if article is None:
        update.added.setdefault(message_id.decode(), []).append(text)
        return
    chunk = _read_chunk(entry.data)
    if not article.is_complete and chunk.offset == len(article.content):
        update.articles[article.message_id] = replace(
            article, content=article.content + chunk.chunk
        )


def _begun(start: Start) -> Message:
    return Message(
        message_id=start.message_id,
        session_id="",
        role=Role.ASSISTANT,
        content=start.content,
        status=Status.STREAMING,
        is_complete=False,
        attempt=start.attempt,
        model=start.model,
        created_at="",
    )


def _texts(added: dict[str, list[bytes]]) -> bytes:
    return b"".join(
        # «.open»: an answer whose final state the page has already takes no more text.
        b'<hx-partial hx-target="#m-%s.open > .text" hx-swap="beforeend">%s</hx-partial>'
        % (message_id.encode(), b"".join(pieces))
        for message_id, pieces in added.items()
    )


def _event(position: str | None, html: bytes) -> bytes:
    """Write an unnamed event; each line of the HTML is a data line, and joined with LF again."""
    head = b"" if position is None else b"id: %s\n" % position.encode()
    return b"%sdata: %s\n\n" % (head, html.replace(b"\n", b"\ndata: "))


def _end() -> bytes:
    return b"event: %s\ndata:\n\n" % END
