"""What happens in a session as HTML for a page that shows it, the same over every transport.

A frame becomes one fragment: a set of partial updates, and the position that the page stands at
once they are made. Every update is addressed by the message's element id and yields the same page
when it is applied twice:

* an article replaces the one with its id, or is put at the end (``hx-upsert``); one that is known
  to be on the page is morphed, which leaves alone what stays the same, and what is selected in it;
* the blocks of an answer that chunks changed, and the runs of its reasoning, replace those with
  their ids, or are put at the end, in the article of an answer that is still open, and in no other.

htmx finds the targets of all partials before it applies the first, so an article and a change of
its text never go into one fragment: chunks that follow their article are folded into it here.

Chunks are additions to a text that the page has and this connection may not know, and so are
pieces of reasoning: ``lacks`` says so, and ``learn`` takes the state that tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from app.domain.events import Chunk, Entry, EventType, SessionChanged, Start, Thought
from app.domain.frames import Entries, Frame, History
from app.domain.messages import Message, Role, Status
from app.web.markdown import MarkdownStream
from app.web.rendering import Rendering, changed, thought
from app.web.thoughts import Thoughts

_read_chunk = msgspec.json.Decoder(Chunk).decode
_read_thought = msgspec.json.Decoder(Thought).decode
_read_message = msgspec.json.Decoder(Message).decode
_read_start = msgspec.json.Decoder(Start).decode
_read_session = msgspec.json.Decoder(SessionChanged).decode


class _Named(msgspec.Struct):
    message_id: str


_read_id = msgspec.json.Decoder(_Named).decode


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
    thoughts: dict[str, dict[int, str]] = field(default_factory=dict)
    """Runs of reasoning that changed, by answer."""
    session: SessionChanged | None = None
    activity: Activity | None = None


@dataclass(frozen=True, slots=True)
class Activity:
    """What the composer and the status line say of the session."""

    status: Status | None
    """Of the answer: None while it is awaited and its id is not known yet."""
    message_id: str | None = None
    was_cut: bool = False
    """Whether the model's limit on the length ended it."""

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
    was_cut = last.error is not None and last.error.code == "length_stopped"
    return Activity(last.status, last.message_id, was_cut)


class FragmentEncoder:
    """Encodes the frames of one session for one connection of its page."""

    def __init__(self, rendering: Rendering, session_id: str) -> None:
        """Take the templates and the session that is shown."""
        self._rendering = rendering
        self._session_id = session_id
        self._texts: dict[str, _Text] = {}
        self._thoughts: dict[str, Thoughts] = {}
        self._untold: set[tuple[type[Chunk | Thought], str]] = set()
        """Answers whose text or reasoning so far nobody could tell: what adds to it waits for the
        next state."""

    def lacks(self, frame: Frame) -> bool:
        """Say whether the frame adds to a text that this connection has not seen."""
        return isinstance(frame, Entries) and bool(self._first_pieces(frame))

    def learn(self, frame: Entries, messages: Sequence[Message]) -> None:
        """Take the state that ``lacks`` asked for; it may be newer than the frame."""
        by_id = {message.message_id: message for message in messages}
        for piece in self._first_pieces(frame):
            found = by_id.get(piece.message_id)
            so_far = ""
            if found is not None:
                so_far = found.content if isinstance(piece, Chunk) else found.reasoning or ""
            end = piece.offset + len(piece.chunk)
            # Another attempt may have started over since: then its ``start`` is still to come.
            if (
                found is None
                or found.attempt != piece.attempt
                or so_far[piece.offset : end] != piece.chunk
            ):
                self._untold.add((type(piece), piece.message_id))
            elif isinstance(piece, Chunk):
                self._know_text(piece.message_id, so_far[: piece.offset])
            else:
                self._thoughts[piece.message_id] = Thoughts(so_far[: piece.offset])

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
        self._thoughts.clear()
        self._untold.clear()
        for message in history.messages:
            if message.role is Role.ASSISTANT and not message.is_complete:
                self._know(message)
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
        texts = b"".join(thought(*changes) for changes in update.thoughts.items())
        texts += b"".join(
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
            case EventType.REASONING:
                self._add_thought(update, _read_thought(entry.data))
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
        is_known = message_id in self._texts or message_id in self._thoughts
        if is_known and message_id not in update.articles:
            update.known.add(message_id)
        update.articles[message_id] = message
        update.added.pop(message_id, None)
        update.thoughts.pop(message_id, None)
        self._texts.pop(message_id, None)
        self._thoughts.pop(message_id, None)
        self._untold -= {(Chunk, message_id), (Thought, message_id)}
        if message.role is Role.ASSISTANT and not message.is_complete:
            self._know(message)

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

    def _add_thought(self, update: _Update, added: Thought) -> None:
        message_id = added.message_id
        thoughts = self._thoughts.get(message_id)
        if thoughts is None:
            return
        # As for chunks, the state may have been newer.
        piece = added.chunk[max(thoughts.characters - added.offset, 0) :]
        if not piece:
            return
        runs = thoughts.append(piece)
        article = update.articles.get(message_id)
        if article is None:
            update.thoughts.setdefault(message_id, {}).update(runs)
        else:
            whole = (article.reasoning or "") + piece
            update.articles[message_id] = replace(article, reasoning=whole)

    def _first_pieces(self, frame: Entries) -> list[Chunk | Thought]:
        """Give the first addition to each text, or reasoning, that is not known before it."""
        texts = {message_id for kind, message_id in self._untold if kind is Chunk} | {*self._texts}
        thoughts = {message_id for kind, message_id in self._untold if kind is Thought}
        thoughts |= {*self._thoughts}
        first: list[Chunk | Thought] = []
        for entry in frame.entries:
            match entry.type:
                case EventType.CHUNK:
                    chunk = _read_chunk(entry.data)
                    if chunk.message_id not in texts:
                        texts.add(chunk.message_id)
                        first.append(chunk)
                case EventType.REASONING:
                    added = _read_thought(entry.data)
                    if added.message_id not in thoughts:
                        thoughts.add(added.message_id)
                        first.append(added)
                case EventType.START | EventType.MESSAGE:
                    # After its final state, what adds to it is no news.
                    whole = _read_id(entry.data).message_id
                    texts.add(whole)
                    thoughts.add(whole)
                case _:
                    pass
        return first

    def _know(self, message: Message) -> None:
        self._know_text(message.message_id, message.content)
        self._thoughts[message.message_id] = Thoughts(message.reasoning or "")

    def _know_text(self, message_id: str, content: str) -> None:
        stream = self._rendering.answer_stream(message_id)
        stream.skip(content)
        self._texts[message_id] = _Text(stream, len(content))


def _begun(start: Start) -> Message:
    return Message(
        message_id=start.message_id,
        session_id="",
        role=Role.ASSISTANT,
        content=start.content,
        reasoning=start.reasoning,
        status=Status.STREAMING,
        is_complete=False,
        attempt=start.attempt,
        model=start.model,
        created_at="",
    )
