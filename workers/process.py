"""What every worker process needs: an end in good order on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call ``stop`` on the event loop at SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
