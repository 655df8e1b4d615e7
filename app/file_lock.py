"""Exclusive locks on files, which a process's death sets free (flock(2))."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take_lock(file: Path) -> int | None:
    """Take the lock of a file, made where missing; None where somebody holds it.

    The lock is on the open file: it is free again when the last copy of the descriptor is closed,
    also that of a child process which inherited one. Raise OSError where the file cannot be opened.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def note_holder(descriptor: int, pid: int) -> None:
    """Write into a locked file which process holds it, for ``holder`` in another process."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid}\n".encode(), 0)


def holder(file: Path) -> str:
    """Say who holds a lock, as a phrase: ``process 4711``, or ``another process``."""
    try:
        written = file.read_text("ascii").strip()
    except (OSError, ValueError):
        written = ""
    return f"process {written}" if written.isdigit() else "another process"
