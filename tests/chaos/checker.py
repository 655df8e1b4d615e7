"""What one client is shown of its session, held against what it must be, event by event."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from tests.chaos.report import Breach
from tests.support.contract_client import ContractBreachError, ContractClient

_LOGGED = {"message", "start", "chunk", "reasoning", "session"}

_RECENT = 12

Tell = Callable[[Breach, str], None]


class Checker:
    """Keeps to the contract's rule, and knows each answer's text beforehand."""

    def __init__(self, tell: Tell) -> None:
        """Tell ``tell`` of each breach, with a sentence."""
        self._report = tell
        self._recent: deque[str] = deque(maxlen=_RECENT)
        """What came last, in short, for whoever looks for the cause of a breach."""
        self._state = "none"
        """The last whole state that came."""
        self._wholes: dict[str, str] = {}
        self.client = _new_client()
        self.finals: dict[str, tuple[str, str]] = {}
        """Status and text of the answers that were shown as final, by id."""

    @property
    def position(self) -> str:
        """Where this stands."""
        return str(self.client.position)

    def expect(self, message_id: str, whole: str) -> None:
        """Say what an answer's text is to be once it is whole."""
        self._wholes[message_id] = whole

    def apply(self, event_id: str | None, kind: str, data: Any) -> None:
        """Take one event."""
        self._recent.append(f"{event_id or '-'} {kind} {_in_short(data)}")
        if kind == "history":
            self._state = self._recent[-1]
        self._check(kind, data)
        before = self.client.position
        try:
            self.client.apply(event_id, kind, data)
        except ContractBreachError as breach:
            self._tell(self._kind_of(event_id, kind, before), str(breach))
            self.client = _new_client()
            return
        self._note_finals(kind, data)

    def ended(self, message_id: str, *, stopped: bool) -> dict[str, Any] | None:
        """Check a final state, after a stop that was accepted or without one; give it.

        None where there is none: whoever looks at it sees a spinner for ever.
        """
        if not self.client.is_complete(message_id):
            self._tell(Breach.MISSED_END, f"{message_id} has no end: a spinner for ever")
            return None
        final, whole = self.client.messages[message_id], self._wholes[message_id]
        status, content = final["status"], final["content"]
        if not whole.startswith(content):
            self._tell(difference(content, whole), f"{message_id} ends as {content[-40:]!r}")
        elif status == "complete" and content != whole:
            self._tell(Breach.LOST, f"{message_id} looks whole and is not: {content[-40:]!r}")
        if stopped and status != "cancelled":
            self._tell(Breach.DISOBEYED, f"{message_id} was stopped and is {status}")
        if status == "failed" and final["error"]["code"] != "attempts_exhausted":
            # One whose workers died three times fails visibly, as promised; nothing else may.
            self._tell(Breach.OTHER, f"{message_id} failed: {final['error']}")
        return final

    def _tell(self, breach: Breach, sentence: str) -> None:
        before = " | ".join(self._recent)
        self._report(breach, f"{sentence}; state: {self._state}; before it: {before}")

    def _check(self, kind: str, data: Any) -> None:
        match kind:
            case "history":
                for message in data["messages"]:
                    self._check_final(message)
            case "message":
                self._check_final(data)
            case "start":
                self._check_start(data)
                self._check_text(data["message_id"], data["content"])
            case "chunk":
                attempt = self._attempt(data["message_id"])
                self._check_attempt(data, attempt not in {0, data["attempt"]})
                self._check_chunk(data["message_id"], data["offset"], data["chunk"])
            case _:
                pass

    def _check_start(self, data: Any) -> None:
        self._check_attempt(data, data["attempt"] < self._attempt(data["message_id"]))

    def _check_attempt(self, data: Any, is_another: bool) -> None:
        if is_another:
            self._tell(
                Breach.TWO_VOICES,
                f"attempt {data['attempt']} of {data['message_id']} speaks in attempt"
                f" {self._attempt(data['message_id'])}",
            )

    def _check_chunk(self, message_id: str, offset: int, chunk: str) -> None:
        shown = self._shown(message_id)
        if offset > len(shown):
            return  # A hole, which the client itself refuses.
        again = shown[offset : offset + len(chunk)]
        if not chunk.startswith(again):
            self._tell(Breach.TWO_VOICES, f"{message_id} says something else at {offset}")
        elif again and again != chunk:
            self._tell(Breach.REPEATED, f"{message_id} repeats a part of itself at {offset}")
        else:
            self._check_text(message_id, shown[:offset] + chunk)

    def _check_text(self, message_id: str, text: str) -> None:
        whole = self._wholes.get(message_id)
        if whole is not None and not whole.startswith(text):
            self._tell(difference(text, whole), f"{message_id} shows {text[-40:]!r}")

    def _check_final(self, message: Any) -> None:
        message_id, content = message["message_id"], message["content"]
        known = self.finals.get(message_id)
        if known is None:
            self._check_text(message_id, content)
            shown = self._shown(message_id)
            if message["is_complete"] and not content.startswith(shown):
                # Whoever read it live saw what nobody will ever see again.
                self._tell(Breach.LOST, f"{message_id} was shown {shown[len(content) :][:40]!r}")
        elif not message["is_complete"]:
            self._tell(Breach.MISSED_END, f"{message_id} was final and looks unfinished")
        elif known != (message["status"], content):
            self._tell(Breach.TWO_VOICES, f"{message_id} has another end than before")

    def _note_finals(self, kind: str, data: Any) -> None:
        messages = data["messages"] if kind == "history" else [data] if kind == "message" else []
        for message in messages:
            if message["is_complete"] and message["message_id"] in self._wholes:
                self.finals[message["message_id"]] = (message["status"], message["content"])

    def _kind_of(self, event_id: str | None, kind: str, before: str | None) -> Breach:
        if event_id is None or kind not in _LOGGED:
            return Breach.OTHER
        if event_id == self.client.position != before or before is None:
            # The position is the next one: what it brings does not join what is there.
            return Breach.HOLE
        return Breach.HOLE if _place(event_id) > _place(before) else Breach.REPEATED

    def _shown(self, message_id: str) -> str:
        return str(self.client.messages.get(message_id, {}).get("content", ""))

    def _attempt(self, message_id: str) -> int:
        return int(self.client.messages.get(message_id, {}).get("attempt", 0))


def _in_short(data: Any) -> str:
    """Give what tells one event from another."""
    if "messages" in data:
        return f"{data['reason']} {[_in_short(message) for message in data['messages'][-2:]]}"
    fields = (str(data.get("message_id", ""))[-6:], data.get("attempt"), data.get("offset"))
    ends = (data.get("status"), str(data.get("content") or data.get("chunk") or "")[-12:])
    return " ".join(str(one) for one in (*fields, *ends) if one is not None)


def difference(text: str, whole: str) -> Breach:
    """Say what happened to a count that is no beginning of ``whole``."""
    places = {word: place for place, word in enumerate(whole.split(" "))}
    said = [places[word] for word in text.split(" ") if word in places]
    if len(set(said)) < len(said):
        return Breach.REPEATED
    return Breach.LOST if said == sorted(said) else Breach.REORDERED


def _place(position: str) -> tuple[int, int]:
    epoch, seq = position.split("-")
    return int(epoch), int(seq)


def _new_client() -> ContractClient:
    client = ContractClient()
    client.position = "0-0"
    return client
