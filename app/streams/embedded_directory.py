"""Where the embedded server keeps its files, and the lock that says who may write them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from urllib.parse import quote

from app.file_lock import take_lock

# sun_path holds 104 bytes on macOS and 108 on Linux, the final NUL included (unix(7)).
_SOCKET_PATH_MAX_BYTES = 100


class EmbeddedDirectory:
    """The paths of one data directory's embedded server; the same in every process.

    ``writer_lock`` is held by the server process itself, which inherits the descriptor: as long as
    any process can write the files, whoever started it and whether or not that one still lives.
    """

    def __init__(self, data_dir: Path) -> None:
        """Take the data directory; nothing is created."""
        self.home = data_dir.resolve() / "valkey"
        self.log = self.home / "valkey.log"
        self.writer_lock = self.home / "writer.lock"
        self.socket = self.home / "valkey.sock"
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_MAX_BYTES:
            digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
            # Not TMPDIR: two shells that disagree about it must agree about the socket.
            short = Path("/tmp")  # noqa: S108  its owner and mode are checked below
            self.socket = short / f"throughline-{os.geteuid()}-{digest}" / "valkey.sock"

    @property
    def url(self) -> str:
        """The server's address for a Redis client."""
        return f"unix://{quote(str(self.socket))}"

    def prepare(self) -> None:
        """Create the directory where missing; raise OSError where that is not possible."""
        self.home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home.mkdir(mode=0o700, exist_ok=True)

    def prepare_socket(self) -> None:
        """Make room for the socket; call while holding the lock. Raise OSError as above."""
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.home:
            self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        self.check_socket()

    def check_socket(self) -> None:
        """Raise PermissionError where the socket's directory belongs to somebody else."""
        if self.socket.parent == self.home or not self.socket.parent.exists():
            return
        found = self.socket.parent.lstat()
        # In a directory that everybody may write, somebody else may have been here first.
        if found.st_uid != os.geteuid() or found.st_mode & 0o170077 != stat.S_IFDIR:
            raise PermissionError(
                errno.EPERM, "not a private directory of this user", str(self.socket.parent)
            )

    def take_writer_lock(self) -> int | None:
        """Give a descriptor that holds the lock, or None where a process holds it already.

        Raise OSError where its file cannot be opened.
        """
        return take_lock(self.writer_lock)

    def forget_socket(self) -> None:
        """Remove the socket that a dead server left; call while holding the lock."""
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.home and self.socket.parent.exists():
            self.socket.parent.rmdir()
