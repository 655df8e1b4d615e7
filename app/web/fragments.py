"""The frames of a session as HTML for a page that shows it: the encoder behind htmx's hx-sse.

Each frame becomes at most one unnamed event, whose data is a set of partial updates, and carries
the position that the page stands at after it. Every update is addressed by the message's element
id and yields the same page when it is applied twice:

* an article replaces the one with its id, or is put at the end (``hx-upsert``); one that is known
  to be on the page is morphed, which leaves alone what stays the same, and what is selected in it;
* the blocks of an answer that chunks changed replace those with their ids, or are put at the end,
  in the article of an answer that is still open, and in no other.

htmx finds the targets of all partials before it applies the first, so an article and a change of
its text never go into one event: chunks that follow their article are folded into it here.

Chunks are additions to a text that the page has and this connection may not know: ``lacks`` says
so, and ``learn`` takes the state that tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from app.domain.events import Chunk, Entry, EventType, SessionChanged, Start
from app.domain.frames import Bye, ByeReason, Entries, Frame, Heartbeat, History, Welcome
from app.domain.messages import Message, Role, Status
from app.web.markdown import MarkdownStream
from app.web.rendering import Rendering, changed

END: Final = b"end"
"""Name of the event upon which the page stops connecting (``hx-sse:close``)."""

_read_chunk = msgspec.json.Decoder(Chunk).decode
_read_message = msgspec.json.Decoder(Message).decode
_read_start = msgspec.json.Decoder(Start).decode
_read_session = msgspec.json.Decoder(SessionChanged).decode


@dataclass(slots=True)
class _Text:
    """The text of an answer that is being written, as the page has it."""

    stream: MarkdownStream
    characters: int
    """Of the text, as the contract counts them."""


@dataclass(slots=True)
class _Update:
    """What a run of entries comes to."""

    articles: dict[str, Message] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    """Which of these articles the page has, in another state."""
    added: dict[str, list[str]] = field(default_factory=dict)
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
    """Encodes the frames of one session for one connection of its page."""

    def __init__(self, rendering: Rendering, session_id: str) -> None:
        """Take the templates and the session that is shown."""
        self._rendering = rendering
        self._session_id = session_id
        self._texts: dict[str, _Text] = {}
        self._untold: set[str] = set()
        """Answers whose text so far nobody could tell: their chunks wait for the next state."""

    def lacks(self, frame: Frame) -> bool:
        """Say whether the frame adds to a text that this connection has not seen."""
        return isinstance(frame, Entries) and bool(self._first_chunks(frame))

    def learn(self, frame: Entries, messages: Sequence[Message]) -> None:
        """Take the state that ``lacks`` asked for; it may be newer than the frame."""
        by_id = {message.message_id: message for message in messages}
        for chunk in self._first_chunks(frame):
            found = by_id.get(chunk.message_id)
            end = chunk.offset + len(chunk.chunk)
            # Another attempt may have started over since: then its ``start`` is still to come.
            if (
                found is not None
                and found.attempt == chunk.attempt
                and found.content[chunk.offset : end] == chunk.chunk
            ):
                self._know(chunk.message_id, found.content[: chunk.offset])
            else:
                self._untold.add(chunk.message_id)

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
        self._texts.clear()
        self._untold.clear()
        for message in history.messages:
            if message.role is Role.ASSISTANT and not message.is_complete:
                self._know(message.message_id, message.content)
        return self._rendering.render(
            "history.html",
            messages=history.messages,
            activity=activity_of(tuple(history.messages)),
            session_id=self._session_id,
        )

    def _entries(self, frame: Entries) -> bytes:
        update = _Update()
        for entry in frame.entries:
            self._apply(update, entry)
        texts = b"".join(
            changed(message_id, self._texts[message_id].stream.append("".join(pieces)))
            for message_id, pieces in update.added.items()
        )
        if not update.articles and update.session is None and update.activity is None:
            return texts
        html = self._rendering.render(
            "entries.html",
            articles=[one for key, one in update.articles.items() if key not in update.known],
            known=[one for key, one in update.articles.items() if key in update.known],
            session=update.session,
            activity=update.activity,
            session_id=self._session_id,
        )
        return html + texts

    def _apply(self, update: _Update, entry: Entry) -> None:
        match entry.type:
            case EventType.CHUNK:
                self._add_chunk(update, _read_chunk(entry.data))
            case EventType.START:
                begun = _begun(_read_start(entry.data))
                self._replace_article(update, begun)
                update.activity = Activity(begun.status, begun.message_id)
            case EventType.MESSAGE:
                message = _read_message(entry.data)
                self._replace_article(update, message)
                update.activity = activity_of((message,))
            case EventType.SESSION:
                update.session = _read_session(entry.data)
            case _:
                # A type that a later version of the log knows: the page shows the rest.
                pass

    def _replace_article(self, update: _Update, message: Message) -> None:
        message_id = message.message_id
        if message_id in self._texts and message_id not in update.articles:
            update.known.add(message_id)
        update.articles[message_id] = message
        update.added.pop(message_id, None)
        self._texts.pop(message_id, None)
        self._untold.discard(message_id)
        if message.role is Role.ASSISTANT and not message.is_complete:
            self._know(message_id, message.content)

    def _add_chunk(self, update: _Update, chunk: Chunk) -> None:
        message_id = chunk.message_id
        text = self._texts.get(message_id)
        if text is None:
            return
        # The state that the text was learned from may have been newer than this chunk.
        piece = chunk.chunk[max(text.characters - chunk.offset, 0) :]
        text.characters += len(piece)
        article = update.articles.get(message_id)
        if article is None:
            update.added.setdefault(message_id, []).append(piece)
        else:
            text.stream.skip(piece)
            update.articles[message_id] = replace(article, content=article.content + piece)

    def _first_chunks(self, frame: Entries) -> list[Chunk]:
        """Give the first chunk of each answer whose text so far is not known before it."""
        known = {*self._texts, *self._untold}
        first: list[Chunk] = []
        for entry in frame.entries:
            match entry.type:
                case EventType.CHUNK:
                    chunk = _read_chunk(entry.data)
                    if chunk.message_id not in known:
                        known.add(chunk.message_id)
                        first.append(chunk)
                case EventType.START:
                    known.add(_read_start(entry.data).message_id)
                case EventType.MESSAGE:
                    # Its chunks are no news after it.
                    known.add(_read_message(entry.data).message_id)
                case _:
                    pass
        return first

    def _know(self, message_id: str, content: str) -> None:
        self._untold.discard(message_id)
        stream = self._rendering.answer_stream(message_id)
        stream.skip(content)
        self._texts[message_id] = _Text(stream, len(content))


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


def _event(position: str | None, html: bytes) -> bytes:
    """Write an unnamed event; each line of the HTML is a data line, and joined with LF again."""
    head = b"" if position is None else b"id: %s\n" % position.encode()
    return b"%sdata: %s\n\n" % (head, html.replace(b"\n", b"\ndata: "))


def _end() -> bytes:
    return b"event: %s\ndata:\n\n" % END
