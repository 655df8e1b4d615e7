"""Compares, after every step, what the database says of answers with what was let happen before."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from app.domain.messages import Status
from tests.support.lease_stage import WHOLE, said_by, unsigned
from tests.support.lease_witness import Witness

_STORED = """
    SELECT id, attempt, status, content, stop_requested_at IS NOT NULL
    FROM messages WHERE role = 'assistant' ORDER BY ordinal
"""


class Stored(NamedTuple):
    """An answer's row."""

    answer_id: str
    attempt: int
    status: str
    content: str
    stop_requested: bool

    @property
    def is_final(self) -> bool:
        return Status(self.status).is_final


class Judge:
    """What has become of each answer, each time that it was asked for."""

    def __init__(self, database: Path, witness: Witness, *, continues: bool) -> None:
        """Read the SQLite file beside those who write to it."""
        self.asked: dict[str, int] = {}
        """How often each answer was asked for, as far as the database knows."""
        self.finals: dict[tuple[str, int], Stored] = {}
        """The final state of each answer, for each time that it was asked for."""
        self._witness = witness
        self._continues = continues
        self._attempts: dict[str, int] = {}
        self._began: dict[tuple[str, int], str | None] = {}
        """Who began each attempt."""
        self._stopped: set[tuple[str, int]] = set()
        self._connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)

    def close(self) -> None:
        """Read no more."""
        self._connection.close()

    def stored(self) -> list[Stored]:
        """Read the answers, oldest first."""
        return [Stored(*row) for row in self._connection.execute(_STORED)]

    def look(self, who: str | None) -> None:
        """Fail where the step just made, by the process ``who``, was none that it may make."""
        for row in self.stored():
            asked = self._times_asked(row)
            before = self._attempts.get(row.answer_id, 0)
            assert before <= row.attempt <= before + 1, f"{row} after attempt {before}"
            if row.attempt > before and row.status == Status.STREAMING:
                assert (row.answer_id, asked) not in self._stopped, f"{row} begun after a stop"
                self._began[row.answer_id, row.attempt] = who
            self._attempts[row.answer_id] = row.attempt
            if row.stop_requested:
                self._stopped.add((row.answer_id, asked))
            if row.is_final:
                self._final(row, asked, who)

    def _times_asked(self, row: Stored) -> int:
        asked = self.asked.get(row.answer_id, 1)
        ended = self.finals.get((row.answer_id, asked))
        if ended is not None and not row.is_final:
            asked += 1
            assert row.attempt > ended.attempt, f"{row} asked for under the number of {ended}"
        self.asked[row.answer_id] = asked
        return asked

    def _final(self, row: Stored, asked: int, who: str | None) -> None:
        if (row.answer_id, asked) in self.finals:
            assert self.finals[row.answer_id, asked] == row, f"a final state changed: {row}"
            return
        self.finals[row.answer_id, asked] = row
        assert WHOLE.startswith(unsigned(row.content)), f"{row} was not said"
        assert self._witness.was_said(row.answer_id, row.content), f"{row} is not in the log"
        self.has_one_voice(row.content)
        if row.status != Status.COMPLETE:
            return
        attempt = row.answer_id, row.attempt
        assert unsigned(row.content) == WHOLE, f"{row} looks whole"
        assert (row.answer_id, asked) not in self._stopped, f"a stop was lost: {row}"
        assert row.content == self._witness.said.get(attempt), f"{row} is not what was let said"
        assert who == self._began.get(attempt), f"{who} ended what {self._began} began: {row}"

    def has_one_voice(self, content: str) -> None:
        """Fail where a model that cannot go on from the middle is found to have done so."""
        if not self._continues:
            assert len(set(said_by(content))) < 2, f"two voices: {content!r}"
