"""Whether a model server is worth asking."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

from app.models.client import ModelFailed


class CircuitState(enum.StrEnum):
    """What becomes of a question to a model server."""

    CLOSED = "closed"
    """It is asked."""
    HALF_OPEN = "half_open"
    """One question tries whether the server is back; all others fail at once."""
    OPEN = "open"
    """They fail at once, until the server was left alone for a while."""


class Circuit:
    """Opens after ``failures`` failures in a row, and lets one trial through after ``seconds``.

    A trial that fails doubles the time, up to eight times ``seconds``. Of this process alone: each
    worker finds out for itself. ``clock`` gives seconds that never go back.
    """

    def __init__(
        self, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_failures = failures
        self._seconds = seconds
        self._clock = clock
        self._failures = 0
        self._trials_failed = 0
        self._opened_at: float | None = None
        self._trial: object | None = None

    @property
    def state(self) -> CircuitState:
        """Give the state as of now."""
        if self._opened_at is None:
            return CircuitState.CLOSED
        return CircuitState.HALF_OPEN if self._remaining() <= 0 else CircuitState.OPEN

    def enter(self) -> object:
        """Ask to pass; the pass is to be handed back to exactly one of the three below.

        Raises ModelFailed ``model_unavailable`` where the circuit is open.
        """
        trial = object()
        match self.state:
            case CircuitState.OPEN:
                wait = max(1, round(self._remaining()))
                raise ModelFailed(
                    "model_unavailable",
                    f"The model server failed again and again; it is tried again in {wait} s",
                )
            case CircuitState.HALF_OPEN if self._trial is not None:
                raise ModelFailed(
                    "model_unavailable",
                    "The model server failed again and again; it is being tried right now",
                )
            case CircuitState.HALF_OPEN:
                self._trial = trial
            case CircuitState.CLOSED:
                pass
        return trial

    def succeeded(self, trial: object) -> None:
        """The server answered. One that was asked before the circuit opened closes it too."""
        del trial
        self._failures = self._trials_failed = 0
        self._opened_at = self._trial = None

    def failed(self, trial: object) -> None:
        """The server is in a bad way."""
        self._failures += 1
        if trial is self._trial:
            self._trial = None
            self._trials_failed = min(self._trials_failed + 1, 3)
            self._opened_at = self._clock()
        elif self._opened_at is None and self._failures >= self._most_failures:
            self._opened_at = self._clock()

    def left(self, trial: object) -> None:
        """Nobody waited for the outcome: it says nothing about the server."""
        if trial is self._trial:
            self._trial = None

    def _remaining(self) -> float:
        if self._opened_at is None:
            return 0.0
        return self._opened_at + self._seconds * float(2**self._trials_failed) - self._clock()
