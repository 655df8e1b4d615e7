"""The key that signs tokens in development: made once, kept in a file of the data directory."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

KEY_MIN_BYTES = 32


def read_key(file: Path) -> bytes:
    """Give the key; raise FileNotFoundError or another OSError, or ValueError if too short."""
    key = file.read_bytes().strip()
    if len(key) < KEY_MIN_BYTES:
        raise ValueError(f"must hold {KEY_MIN_BYTES} bytes or more")
    return key


def make_key(file: Path) -> None:
    """Make the file where it is missing, readable by its owner only.

    Processes that do so at the same time end with one file and read the same key. Raise OSError
    where it cannot be written.
    """
    if file.exists():
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mode 0600
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w") as writing:
            writing.write(secrets.token_urlsafe(48) + "\n")
            writing.flush()
            os.fsync(writing.fileno())
        # A link appears whole or not at all, and fails where another process was first.
        file.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
