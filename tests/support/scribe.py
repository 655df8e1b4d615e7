"""A conversation written into a session log as the product writes one, and what is stored of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

from msgspec.structs import replace

from app.domain.events import Chunk, Entry, SessionChanged, Start, Thought, new_entry
from app.domain.lease import Lease
from app.domain.messages import Message, Role, Status
from app.models.client import Reasoning
from app.streams.session_log import (
    ActiveAnswer,
    AppendBatch,
    AppendOutcome,
    Claimed,
    Held,
    SessionLog,
)
from tests.support.contract_client import ContractClient

LEASE_MS = 20_000
_MOMENT = "2026-01-31T09:05:00.123Z"


class Scribe:
    """One session: its messages as the database has them, and the ways to change them."""

    def __init__(self, log: SessionLog, session_id: str = "s-1") -> None:
        self.log = log
        self.session_id = session_id
        self.messages: dict[str, Message] = {}
        """What is stored, oldest first."""
        self.log_begun = False
        self.deleted = False
        self._ids = itertools.count(1)

    async def ask(self, text: str = "How are you?") -> str:
        """Store a question with its awaited answer, then tell; give the answer's id."""
        number = next(self._ids)
        question = self._message(f"q-{number}", Role.USER, text, Status.COMPLETE)
        answer = self._message(f"a-{number}", Role.ASSISTANT, "", Status.QUEUED)
        for message in (question, answer):
            self.messages[message.message_id] = message
        pristine, self.log_begun = not self.log_begun, True
        submitted = await self.log.submit(
            self.session_id, answer.message_id, 0, [new_entry(question)], pristine=pristine
        )
        untold = self.messages.get(submitted.untold or "")
        if untold is not None and untold.is_complete:
            await self.log.record(self.session_id, [new_entry(untold)], pristine=False)
        return answer.message_id

    async def ask_again(self, answer: str) -> None:
        """Store that a final answer is to be written anew, then tell."""
        stored = replace(
            self.messages[answer],
            status=Status.QUEUED,
            is_complete=False,
            content="",
            reasoning=None,
            # As ``accept_regeneration`` does: what comes late of the answer before is older.
            attempt=self.messages[answer].attempt + 1,
            completed_at=None,
        )
        self.messages[answer] = stored
        await self.log.submit(self.session_id, answer, stored.attempt, [], pristine=False)

    async def rename(self, title: str) -> None:
        pristine, self.log_begun = not self.log_begun, True
        entry = new_entry(SessionChanged(self.session_id, title))
        await self.log.record(self.session_id, [entry], pristine=pristine)

    async def delete(self) -> None:
        self.messages.clear()
        self.deleted = True
        entry = new_entry(SessionChanged(self.session_id, "", deleted=True))
        await self.log.delete(self.session_id, entry)

    async def begin(
        self, answer: str, node_id: str = "worker-1", *, keep: bool = True, remembered: str = ""
    ) -> Writing | None:
        """Begin an attempt as a worker does; None where another holds the lease."""
        claimed = await self.log.claim(self.session_id, answer, node_id, LEASE_MS)
        if isinstance(claimed, Held):
            return None
        return await self.start(claimed, answer, keep=keep, remembered=remembered)

    async def start(
        self, claimed: Claimed, answer: str, *, keep: bool = True, remembered: str = ""
    ) -> Writing:
        """Store that the next attempt began, and begin it in the log with the text that it keeps.

        ``remembered`` is what the worker itself had in a log that was lost.
        """
        text = claimed.active.text if claimed.active else ""
        kept = max(text, remembered, key=len) if keep else ""
        # What was thought stays with the text that it led to.
        thoughts = claimed.active.reasoning if claimed.active and kept and kept == text else ""
        stored = self.messages[answer]
        stored = replace(stored, status=Status.STREAMING, attempt=stored.attempt + 1)
        self.messages[answer] = stored
        writing = Writing(self, claimed.lease, answer, stored.attempt, kept=kept, thoughts=thoughts)
        writing.outcome = await self.log.start(
            claimed.lease,
            answer,
            stored.attempt,
            kept=kept,
            kept_reasoning=thoughts,
            entries=[new_entry(Start(answer, stored.attempt, "demo", kept, thoughts or None))],
            entries_if_unknown=[new_entry(self.messages[answer.replace("a-", "q-")])],
        )
        return writing

    def store_final(
        self, answer: str, attempt: int, status: Status, text: str, thoughts: str = ""
    ) -> Message | None:
        """Store a final state, unless a newer attempt or a final state is stored."""
        stored = self.messages.get(answer)
        if stored is None or stored.is_complete or stored.attempt != attempt:
            return None
        stored = replace(
            stored,
            status=status,
            is_complete=True,
            content=text,
            reasoning=thoughts or None,
            completed_at=_MOMENT,
        )
        self.messages[answer] = stored
        return stored

    @property
    def unfinished(self) -> str | None:
        """The answer that is awaited: there is one at most."""
        for message in self.messages.values():
            if not message.is_complete:
                return message.message_id
        return None

    def _message(self, message_id: str, role: Role, content: str, status: Status) -> Message:
        return Message(
            message_id=message_id,
            session_id=self.session_id,
            role=role,
            content=content,
            status=status,
            is_complete=status.is_final,
            attempt=0,
            model="demo" if role is Role.ASSISTANT else None,
            created_at=_MOMENT,
        )


class Writing:
    """One attempt at an answer, under one lease."""

    def __init__(
        self,
        scribe: Scribe,
        lease: Lease,
        answer: str,
        attempt: int,
        *,
        kept: str,
        thoughts: str,
    ) -> None:
        self.lease = lease
        self.answer = answer
        self.attempt = attempt
        self.text = kept
        """What the log has of the answer as far as this attempt knows."""
        self.thoughts = thoughts
        """What it has of the reasoning, likewise."""
        self.index = 0
        self.outcome = AppendOutcome.OK
        """What became of the last write."""
        self._scribe = scribe
        self._sent: AppendBatch | None = None

    def batch(self, *pieces: str | Reasoning) -> AppendBatch:
        """Make the flush of pieces that comes next, without sending it."""
        text = thoughts = ""
        entries = []
        for index, piece in enumerate(pieces, self.index):
            if isinstance(piece, Reasoning):
                offset = len(self.thoughts) + len(thoughts)
                entry = new_entry(Thought(self.answer, self.attempt, offset, piece.text))
                thoughts += piece.text
            else:
                offset = len(self.text) + len(text)
                entry = new_entry(Chunk(self.answer, self.attempt, index, offset, piece))
                text += piece
            entries.append(entry)
        return AppendBatch(
            self.lease, self.answer, self.attempt, self.index, text, entries, thoughts
        )

    async def write(self, *pieces: str | Reasoning) -> AppendOutcome:
        """Append pieces in one flush."""
        self._sent = self.batch(*pieces)
        (self.outcome,) = await self._scribe.log.append([self._sent])
        if self.outcome is AppendOutcome.OK:
            self.text += self._sent.text
            self.thoughts += self._sent.reasoning
            self.index += len(pieces)
        return self.outcome

    async def write_again(self) -> AppendOutcome:
        """Send the last flush once more, as after a lost reply."""
        assert self._sent is not None
        (outcome,) = await self._scribe.log.append([self._sent])
        return outcome

    async def finish(self, status: Status = Status.COMPLETE) -> AppendOutcome | None:
        """Store the final state, then tell it; None where a newer attempt has the word."""
        final = self._scribe.store_final(
            self.answer, self.attempt, status, self.text, self.thoughts
        )
        if final is None:
            return None
        self.outcome = await self._scribe.log.finish(
            self.lease, self.answer, self.attempt, new_entry(final)
        )
        return self.outcome


def tell(client: ContractClient, entries: Iterable[Entry]) -> ContractClient:
    """Hand entries to a client, as any of the transports does."""
    for entry in entries:
        client.apply(str(entry.position), entry.type, json.loads(entry.data))
    return client


def known(active: ActiveAnswer | None) -> ActiveAnswer:
    """Give an answer that a log must know of."""
    assert active is not None
    return active
