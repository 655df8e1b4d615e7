"""A client that follows the contract's rule to the letter, and fails at any breach of it."""

from __future__ import annotations

import json
from typing import Any


class ContractBreachError(AssertionError):
    """The server sent something that the contract does not allow."""


class ContractClient:
    """Keeps the last position, appends at the offset, drops repeats and refuses holes.

    Pure: hand it the id, type and data of each event. ``history`` replaces everything.
    """

    def __init__(self) -> None:
        self.position: str | None = None
        self.messages: dict[str, dict[str, Any]] = {}
        self.applied: list[str] = []
        """Ids of all log events in the order of their arrival."""
        self.histories: list[str] = []
        """Reasons of all histories."""
        self.starts: list[dict[str, Any]] = []

    def apply(self, event_id: str | None, kind: str, data: Any) -> None:
        """Take one event."""
        if kind == "history":
            self.messages = {message["message_id"]: message for message in data["messages"]}
            self.position = data["position"]
            self.histories.append(data["reason"])
            if event_id != data["position"]:
                raise ContractBreachError(f"history with id {event_id}: {data['position']}")
            return
        if kind in {"welcome", "bye", "error"}:
            if event_id is not None:
                raise ContractBreachError(f"{kind} carries the id {event_id}")
            return
        if event_id is None:
            raise ContractBreachError(f"{kind} without an id")
        self._advance(event_id, data.get("count", 1))
        self.applied.append(event_id)
        match kind:
            case "message":
                self.messages[data["message_id"]] = data
            case "start":
                self.starts.append(data)
                self._answer(data["message_id"]).update(
                    content=data["content"],
                    reasoning=data["reasoning"],
                    attempt=data["attempt"],
                    is_complete=False,
                )
            case "chunk" | "reasoning":
                self._append("content" if kind == "chunk" else kind, data)
            case "session":
                pass
            case _:
                raise ContractBreachError(f"unknown event {kind}")

    def text(self, message_id: str) -> str:
        """Give what this client shows of a message."""
        content: str = self._answer(message_id)["content"]
        return content

    def is_complete(self, message_id: str) -> bool:
        """Say whether the message is in a final state here."""
        return bool(self.messages.get(message_id, {}).get("is_complete"))

    def _advance(self, event_id: str, count: int) -> None:
        epoch, seq = (int(part) for part in event_id.split("-"))
        if self.position is not None:
            known_epoch, known_seq = (int(part) for part in self.position.split("-"))
            begins = known_epoch == known_seq == 0 and seq == 0
            if not begins and (epoch, seq) != (known_epoch, known_seq + count):
                raise ContractBreachError(f"{event_id} came after {self.position}")
        self.position = event_id

    def reasoning(self, message_id: str) -> str | None:
        """Give what this client shows of the thoughts before a message."""
        reasoning: str | None = self._answer(message_id)["reasoning"]
        return reasoning

    def _append(self, field: str, data: dict[str, Any]) -> None:
        answer = self._answer(data["message_id"])
        text = answer[field] or ""
        if data["offset"] > len(text):
            raise ContractBreachError(f"a hole: {data['offset']} after {len(text)} characters")
        if data["offset"] == len(text):
            answer[field] = text + data["chunk"]

    def _answer(self, message_id: str) -> dict[str, Any]:
        return self.messages.setdefault(
            message_id,
            {"message_id": message_id, "content": "", "reasoning": None, "is_complete": False},
        )


class SseParser:
    """Reads the lines of an event stream (WHATWG HTML, server-sent events, as far as we use it)."""

    def __init__(self) -> None:
        self._id: str | None = None
        self._kind = "message"
        self._data: list[str] = []

    def line(self, line: str) -> tuple[str | None, str, Any] | None:
        """Take one line without its end; give an event where the line completes one."""
        if line == "":
            event = None
            if self._data:
                event = (self._id, self._kind, json.loads("\n".join(self._data)))
            self._id, self._kind, self._data = None, "message", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "id":
                self._id = value
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
            case _:
                pass
        return None
