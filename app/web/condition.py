"""How a part of the node is, and what looks at it."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable


class Condition(enum.StrEnum):
    """How a component, or all of them together, are."""

    UP = "UP"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"


Check = Callable[[], Awaitable[Condition]]
"""Looks at one component; raising anything means DOWN."""
