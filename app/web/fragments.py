"""What happens in a session as HTML for a page that shows it, the same over every transport.

A frame becomes one fragment: a set of partial updates, and the position that the page stands at
once they are made. Every update is addressed by the message's element id and yields the same page
when it is applied twice:

* an article replaces the one with its id, or is put at the end (``hx-upsert``); one that is known
  to be on the page is morphed, which leaves alone what stays the same, and what is selected in it;
* the blocks of an answer that chunks changed replace those with their ids, or are put at the end,
  in the article of an answer that is still open, and in no other.

htmx finds the targets of all partials before it applies the first, so an article and a change of
its text never go into one fragment: chunks that follow their article are folded into it here.

Chunks are additions to a text that the page has and this connection may not know: ``lacks`` says
so, and ``learn`` takes the state that tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from app.domain.events import Chunk, Entry, EventType, SessionChanged, Start
from app.domain.frames import Entries, Frame, History
from app.domain.messages import Message, Role, Status
from app.web.markdown import MarkdownStream
from app.web.rendering import Rendering, changed

_read_chunk = msgspec.json.Decoder(Chunk).decode
_read_message = msgspec.json.Decoder(Message).decode
_read_start = msgspec.json.Decoder(Start).decode
_read_session = msgspec.json.Decoder(SessionChanged).decode


class Fragment(NamedTuple):
    """A change to the page."""

    html: bytes
    """Empty where only the position moves."""
    position: str | None
    """Where the page stands after it; None for what is the last word anyway."""


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

    def fragment(self, frame: Entries | History) -> Fragment:
        """Encode what changes the page."""
        if isinstance(frame, Entries):
            return Fragment(self._entries(frame), str(frame.position))
        return Fragment(self._history(frame), frame.position)

    def gone(self) -> Fragment:
        """Say that the session was deleted: nothing comes after it."""
        return Fragment(self._rendering.render("gone.html"), None)

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
