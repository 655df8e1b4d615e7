"""The encoders of the streams, and the response that carries them, without a server."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from httpx_sse import ServerSentEvent
from httpx_sse._decoders import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import Unavailable
from app.domain.events import Chunk, Entry, SessionChanged, Start, new_entry
from app.domain.frames import (
    Bye,
    ByeReason,
    Entries,
    Frame,
    Heartbeat,
    History,
    HistoryReason,
    Welcome,
)
from app.domain.messages import Message, Role, Status
from app.domain.position import Position
from app.models.build import build_models
from app.web import sse
from app.web.assets import Assets
from app.web.fragments import FragmentEncoder
from app.web.model_choice import ModelChoice
from app.web.page_frames import page_event, page_texts
from app.web.rendering import Rendering

_APP = Path(__file__).parents[2] / "app"
_ANSWER = "01a209d8-ec17-77d5-8cf5-2b4c56bc6f81"
_QUESTION = "01a209d8-ec17-77d5-8cf5-2b4bc93a1b8c"
_STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


def _message(**fields: Any) -> Message:
    values: dict[str, Any] = {
        "message_id": _ANSWER,
        "session_id": "s",
        "role": Role.ASSISTANT,
        "content": "",
        "status": Status.COMPLETE,
        "is_complete": True,
        "attempt": 1,
        "model": "demo",
        "created_at": "2026-01-31T09:05:00.123Z",
    }
    return Message(**values | fields)


def _entry(seq: int, data: Message | Start | Chunk | SessionChanged) -> Entry:
    made = new_entry(data)
    return Entry(Position(7, seq), made.type, made.data)


def _chunk(seq: int, offset: int, text: str) -> Entry:
    return _entry(seq, Chunk(_ANSWER, 1, seq, offset, text))


def _events(written: bytes) -> list[ServerSentEvent]:
    """Read events as httpx-sse does; it makes one of a lone ``retry:`` as well, which we drop."""
    decoder = SSEDecoder()
    events = (decoder.decode(line) for line in written.decode().split("\n")[:-1])
    return [event for event in events if event is not None and event.retry is None]


@pytest.fixture(scope="module")
def rendering() -> Rendering:
    return Rendering(_APP / "templates", Assets(_APP / "static"), ModelChoice(build_models()))


@pytest.fixture
def encoder(rendering: Rendering) -> FragmentEncoder:
    return FragmentEncoder(rendering, "s")


class TestServerSentEvents:
    def test_an_entry_carries_its_position_its_type_and_its_data_unchanged(self) -> None:
        entry = _chunk(3, 0, "a\nb\r\u2028 «»")
        (event,) = _events(sse.entry_event(entry))
        assert (event.id, event.event) == ("7-3", "chunk")
        assert event.data.encode() == entry.data
        assert json.loads(event.data)["chunk"] == "a\nb\r\u2028 «»"

    def test_all_entries_of_a_frame_are_one_write_in_order(self) -> None:
        entries = [_chunk(number, number, "x") for number in range(5)]
        written = sse.frame_event(Entries(entries))
        assert [event.id for event in _events(written)] == [f"7-{n}" for n in range(5)]

    def test_an_entry_is_encoded_once_for_all_clients(self) -> None:
        entry = _chunk(1, 0, "x")
        assert entry.form(sse.entry_event) is entry.form(sse.entry_event)

    def test_history_carries_an_id_so_that_a_stock_eventsource_resumes_after_it(self) -> None:
        frame = History([_message(content="hi")], "7-9", HistoryReason.TRIMMED)
        (event,) = _events(sse.frame_event(frame))
        assert (event.id, event.event) == ("7-9", "history")
        assert json.loads(event.data)["reason"] == "trimmed"
        assert json.loads(event.data)["messages"][0]["content"] == "hi"

    @pytest.mark.parametrize(
        ("frame", "name"),
        [
            (Welcome(1, "s", "node", "sse", 15), "welcome"),
            (Bye(ByeReason.DRAIN, reconnect=True, after_ms=5), "bye"),
        ],
    )
    def test_control_frames_carry_no_position(self, frame: Frame, name: str) -> None:
        written = sse.frame_event(frame)
        assert b"id:" not in written
        (event,) = _events(written)
        assert event.event == name
        assert json.loads(event.data) == msgspec.to_builtins(frame)

    def test_a_heartbeat_is_a_comment_that_no_client_sees_as_an_event(self) -> None:
        assert sse.frame_event(Heartbeat()) == b": heartbeat\n\n"
        assert _events(b": heartbeat\n\n") == []

    def test_retry_is_milliseconds(self) -> None:
        assert sse.retry(1900) == b"retry: 1900\n\n"

    @pytest.mark.parametrize(
        ("error", "code", "retryable"),
        [(Unavailable(), "unavailable", True), (RuntimeError("a secret"), "internal_error", True)],
    )
    def test_an_error_after_the_start_is_told_without_its_insides(
        self, error: Exception, code: str, retryable: bool
    ) -> None:
        written = sse.error_event(error)
        (event,) = _events(written)
        assert event.event == "error"
        assert json.loads(event.data)["code"] == code
        assert json.loads(event.data)["retryable"] is retryable
        assert b"a secret" not in written

    @given(text=_STORABLE)
    def test_any_text_comes_through_byte_for_byte(self, text: str) -> None:
        (event,) = _events(sse.entry_event(_chunk(0, 0, text)))
        assert json.loads(event.data)["chunk"] == text

    def test_a_poll_answer_holds_the_same_events(self) -> None:
        entries = [_chunk(1, 0, "a"), _chunk(2, 1, "b")]
        body = json.loads(sse.poll_answer(entries, Position(7, 2), None))
        assert body["position"] == "7-2"
        assert body["history"] is None
        assert [event["id"] for event in body["events"]] == ["7-1", "7-2"]
        assert [event["type"] for event in body["events"]] == ["chunk", "chunk"]
        assert [event["data"]["chunk"] for event in body["events"]] == ["a", "b"]


class _Html(HTMLParser):
    """What a browser makes of a fragment, as far as these tests ask."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.targets: list[str] = []
        self.texts: dict[str, str] = {}
        """Of an article, or of a change to one by its target, without the line ends around it."""
        self.ids: list[str] = []
        """Of elements other than those of the composer."""
        self._into: str | None = None
        self._divisions = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag in {"hx-partial", "hx-upsert"}:
            self.targets.append(found["hx-target"] or "")
        if tag in {"article", "div", "span"} and "id" in found:
            self.ids.append(found["id"] or "")
        if tag == "div" and self._into is not None:
            self._divisions += 1
        elif tag == "div" and found.get("class") == "text":
            self._into, self._divisions = f"#{self.ids[-1]}", 1
        elif tag == "hx-upsert" and ".open" in (found["hx-target"] or ""):
            self._into = found["hx-target"] or ""
        if self._into is not None:
            self.texts.setdefault(self._into, "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "div":
            self._divisions -= 1
        if tag == "hx-upsert" or (tag == "div" and self._divisions == 0):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self.texts[self._into] += data


def _begin(encoder: FragmentEncoder, content: str = "") -> None:
    page_event(encoder, Entries([_entry(0, Start(_ANSWER, 1, "demo", content))]))


class TestFragments:
    def test_chunks_of_a_frame_become_one_change_of_the_open_block(
        self, encoder: FragmentEncoder
    ) -> None:
        _begin(encoder)
        frame = Entries([_chunk(1, 0, "a <b>"), _chunk(2, 5, "\n & c")])
        (event,) = _events(page_event(encoder, frame))
        assert (event.id, event.event) == ("7-2", "fragment")
        html = _Html(event.data)
        assert html.texts == {f"#m-{_ANSWER}.open > .text": "a <b>\n& c"}
        assert html.ids == [f"m-{_ANSWER}-b0"]

    def test_a_finished_block_is_sent_for_the_last_time_with_the_block_after_it(
        self, encoder: FragmentEncoder
    ) -> None:
        _begin(encoder)
        sent = [
            _Html(_events(page_event(encoder, Entries([_chunk(at, at, text)])))[0].data).ids
            for at, text in enumerate(["a", "\n", "\n", "b", "\n", "\n", "c", "\n"])
        ]
        first, second, third = (f"m-{_ANSWER}-b{number}" for number in range(3))
        assert sent[0] == [first]
        assert sent[3] == [first, second]
        assert sent[6] == [second, third]

    def test_a_long_open_code_block_is_sent_in_runs(self, encoder: FragmentEncoder) -> None:
        _begin(encoder, "```\n" + "line\n" * 500)
        (event,) = _events(page_event(encoder, Entries([_chunk(1, 2504, "x")])))
        assert _Html(event.data).ids == [
            f"m-{_ANSWER}-b0",
            *(f"m-{_ANSWER}-b0-r{number}" for number in range(3)),
        ]
        (event,) = _events(page_event(encoder, Entries([_chunk(2, 2505, "y")])))
        html = _Html(event.data)
        assert html.ids == [f"m-{_ANSWER}-b0-r2"]
        assert html.targets == [f"#m-{_ANSWER}.open #m-{_ANSWER}-b0 code"]

    def test_a_connection_that_begins_in_the_middle_asks_for_the_text_before(
        self, encoder: FragmentEncoder
    ) -> None:
        """The page has «one», a blank line and «tw»; this connection has seen nothing."""
        frame = Entries([_chunk(4, 7, "o")])
        assert encoder.lacks(frame)
        encoder.learn(frame, [_message(content="one\n\ntwo, and more", is_complete=False)])
        assert not encoder.lacks(frame)
        (event,) = _events(page_event(encoder, frame))
        assert _Html(event.data).ids == [f"m-{_ANSWER}-b1"]
        assert _Html(event.data).texts == {f"#m-{_ANSWER}.open > .text": "two"}

    @pytest.mark.parametrize(
        "state",
        [
            [],
            [_message(content="one\n\ntwo", attempt=2)],
            [_message(content="something else", attempt=1)],
        ],
    )
    def test_a_text_that_cannot_be_told_waits_for_the_next_state(
        self, encoder: FragmentEncoder, state: list[Message]
    ) -> None:
        frame = Entries([_chunk(4, 7, "o")])
        encoder.learn(frame, state)
        assert not encoder.lacks(frame)
        assert [event.data for event in _events(page_event(encoder, frame))] == [""]
        _begin(encoder, "one")
        (event,) = _events(page_event(encoder, Entries([_chunk(5, 3, " two")])))
        assert list(_Html(event.data).texts.values()) == ["one two"]

    def test_a_state_newer_than_the_chunks_after_it_makes_them_repeats(
        self, encoder: FragmentEncoder
    ) -> None:
        open_answer = _message(content="one", status=Status.STREAMING, is_complete=False)
        page_event(encoder, History([open_answer], "7-1", HistoryReason.EPOCH))
        page_event(encoder, Entries([_chunk(2, 0, "on")]))
        (event,) = _events(page_event(encoder, Entries([_chunk(3, 2, "e two")])))
        assert list(_Html(event.data).texts.values()) == ["one two"]

    def test_an_answer_that_is_final_takes_no_more_text(self, encoder: FragmentEncoder) -> None:
        """The page may stand behind the database: chunks before the end arrive after it."""
        frame = Entries([_entry(1, _message(content="whole")), _chunk(2, 0, "whole")])
        assert not encoder.lacks(frame)
        (event,) = _events(page_event(encoder, frame))
        assert _Html(event.data).texts == {f"#m-{_ANSWER}": "whole"}
        assert f'id="m-{_ANSWER}" class="message assistant"' in event.data

    def test_an_article_that_the_page_has_is_morphed_and_any_other_put(
        self, encoder: FragmentEncoder
    ) -> None:
        final = Entries([_entry(9, _message(content="whole"))])
        assert _Html(_events(page_event(encoder, final))[0].data).targets[0] == "#messages"
        _begin(encoder)
        (event,) = _events(page_event(encoder, final))
        assert f'hx-target="#m-{_ANSWER}" hx-swap="outerMorph"' in event.data

    def test_chunks_are_folded_into_an_article_of_the_same_frame(
        self, encoder: FragmentEncoder
    ) -> None:
        """Htmx looks for the targets of all partials before it has applied the first."""
        entries = [
            _entry(1, Start(_ANSWER, 2, "demo", "kept ")),
            _chunk(2, 5, "and "),
            _chunk(3, 5, "and "),
            _chunk(4, 9, "more"),
        ]
        (event,) = _events(page_event(encoder, Entries(entries)))
        html = _Html(event.data)
        assert html.texts == {f"#m-{_ANSWER}": "kept and more"}
        assert not [target for target in html.targets if ".text" in target]
        (event,) = _events(page_event(encoder, Entries([_chunk(5, 13, " now")])))
        assert list(_Html(event.data).texts.values()) == ["kept and more now"]

    def test_a_start_drops_what_was_added_before_it(self, encoder: FragmentEncoder) -> None:
        _begin(encoder)
        entries = [_chunk(1, 0, "lost"), _entry(2, Start(_ANSWER, 2, "demo", ""))]
        (event,) = _events(page_event(encoder, Entries(entries)))
        assert _Html(event.data).texts == {f"#m-{_ANSWER}": ""}

    def test_a_question_is_followed_by_a_way_to_stop_what_it_awaits(
        self, encoder: FragmentEncoder
    ) -> None:
        question = _message(message_id=_QUESTION, role=Role.USER, content="why?")
        (event,) = _events(page_event(encoder, Entries([_entry(1, question)])))
        assert _Html(event.data).ids == [f"m-{_QUESTION}"]
        assert 'formaction="/chat/s/stop"' in event.data
        (event,) = _events(page_event(encoder, Entries([_entry(2, Start(_ANSWER, 1, "demo", ""))])))
        assert f'formaction="/chat/messages/{_ANSWER}/stop"' in event.data
        (event,) = _events(page_event(encoder, Entries([_entry(3, _message())])))
        assert 'id="send"' in event.data

    def test_history_replaces_all_messages(self, encoder: FragmentEncoder) -> None:
        messages = [
            _message(message_id=_QUESTION, role=Role.USER, content="why?"),
            _message(content="beca", status=Status.STREAMING, is_complete=False),
        ]
        frame = History(messages, "8-1", HistoryReason.EPOCH)
        (event,) = _events(page_event(encoder, frame))
        html = _Html(event.data)
        assert event.id == "8-1"
        assert html.targets[0] == "#messages"
        assert html.texts == {f"#m-{_QUESTION}": "why?", f"#m-{_ANSWER}": "beca"}
        assert "open" in event.data

    def test_both_streams_of_the_page_say_the_same(self, rendering: Rendering) -> None:
        """Frame by frame; the page's script knows no difference between the two."""
        entries = Entries([_entry(1, Start(_ANSWER, 1, "demo", "")), _chunk(2, 0, "a\n\n«b»")])
        frames: list[Frame] = [
            Welcome(1, "s", "node", "sse", 15),
            entries,
            History([_message(content="x")], "8-1", HistoryReason.EPOCH),
            Heartbeat(),
            Bye(ByeReason.DRAIN, reconnect=True, after_ms=5),
            Bye(ByeReason.SESSION_DELETED, reconnect=False, after_ms=0),
        ]
        by_events, by_socket = (FragmentEncoder(rendering, "s") for _ in range(2))
        events = [event for frame in frames for event in _events(page_event(by_events, frame))]
        texts = [json.loads(text) for frame in frames for text in page_texts(by_socket, frame)]
        assert [text["type"] for text in texts] == [
            *("welcome", "fragment", "fragment", "heartbeat", "bye", "fragment", "bye")
        ]
        for event, text in zip(events, texts, strict=True):
            is_html = event.event == "fragment"
            assert event.event == text["type"]
            assert (event.data if is_html else json.loads(event.data)) == text["data"]
        assert [text.get("id") for text in texts if text["type"] == "fragment"] == [
            *("7-2", "8-1", None)
        ]
        assert "was deleted" in texts[-2]["data"]

    def test_a_title_changes_in_the_bar(self, encoder: FragmentEncoder) -> None:
        changed = SessionChanged("s", "<New> title")
        (event,) = _events(page_event(encoder, Entries([_entry(1, changed)])))
        assert _Html(event.data).targets == ["#title"]
        assert "&lt;New&gt; title" in event.data

    def test_an_unknown_type_of_entry_only_moves_the_position(
        self, encoder: FragmentEncoder
    ) -> None:
        entry = Entry(Position(7, 8), "later", b"{}")
        (event,) = _events(page_event(encoder, Entries([entry])))
        assert (event.id, event.data) == ("7-8", "")

    @given(text=_STORABLE)
    def test_any_question_is_shown_byte_for_byte(self, rendering: Rendering, text: str) -> None:
        """Line ends of every kind, markup, white space at either end: as it was written.

        The parser here keeps bare carriage returns; that none is written is asserted beside it,
        since both a browser and the stream's own parser would read one as a line feed.
        """
        question = _message(message_id=_QUESTION, role=Role.USER, content=text)
        written = page_event(FragmentEncoder(rendering, "s"), Entries([_entry(1, question)]))
        assert b"\r" not in written
        (event,) = _events(written)
        assert _Html(event.data).texts == {f"#m-{_QUESTION}": text}

    @given(pieces=st.lists(_STORABLE.filter(bool), min_size=1, max_size=5))
    def test_any_answer_is_framed_safely(self, rendering: Rendering, pieces: list[str]) -> None:
        """No character of an answer ends an event or a line of one."""
        encoder = FragmentEncoder(rendering, "s")
        _begin(encoder)
        offset, written = 0, b""
        for number, piece in enumerate(pieces, 1):
            written += page_event(encoder, Entries([_chunk(number, offset, piece)]))
            offset += len(piece)
        assert b"\r" not in written
        assert [event.id for event in _events(written)] == [
            f"7-{number}" for number, _ in enumerate(pieces, 1)
        ]
