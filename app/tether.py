"""Run a program so that it does not outlive the process that started it.

``tethered`` wraps a command; this file, run as a script, is the wrapping: it asks the kernel for a
signal at the parent's death and then becomes the program, with the same process id and command
line. Nothing runs between fork and exec in the (possibly threaded) parent, as ``preexec_fn`` would.

The kernel's promise is Linux's (prctl(2), PR_SET_PDEATHSIG). It is given when the *thread* that
started the program ends, so start programs from the main thread. Elsewhere the program is run as
it is, and may be left behind by a parent that is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127


def tethered(command: Sequence[str], *, last_signal: signal.Signals) -> list[str]:
    """Give the command that runs ``command`` and sends it ``last_signal`` when we die."""
    return [
        sys.executable,
        "-I",
        "-S",
        os.path.abspath(__file__),  # noqa: PTH100  pathlib is not worth its import in the script
        str(os.getpid()),
        str(int(last_signal)),
        *command,
    ]


def _become(parent: int, last_signal: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, last_signal, 0, 0, 0)
        # The parent may have died before the kernel knew whom to tell.
        if os.getppid() != parent:
            sys.exit(0)
    # Python ignores these two, and what is ignored stays ignored in the program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606  no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(_NOT_FOUND)


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
