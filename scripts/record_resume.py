"""Records a stream that is cut and resumed, with curl against a real server, into README.md.

Run it from the repository: ``.venv/bin/python -m scripts.record_resume``.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import urllib.request
from pathlib import Path

from scripts.own_server import running_server

_README = Path(__file__).parent.parent / "README.md"
_BEGIN, _END = "<!-- resume:begin -->", "<!-- resume:end -->"
_SHOWN_ADDRESS = "http://localhost:8000"
_SESSION = "numbers"
_QUESTION = "/count 12 150"
_ANSWER = " ".join(str(number) for number in range(1, 13))
_SHOWN_CHARACTERS = 112
_CUT_SECONDS = 1
_REST_SECONDS = 3


def main() -> None:
    """Ask, cut, resume, check that nothing is missing or repeated, and write it down."""
    with running_server() as address:
        _ask(address)
        stream = f"{address}/api/sessions/{_SESSION}/events"
        first = ["curl", "-sN", "--max-time", str(_CUT_SECONDS), stream]
        cut = _run(first)
        position = _last_position(cut)
        second = ["curl", "-sN", "--max-time", str(_REST_SECONDS)]
        second += ["-H", f"Last-Event-ID: {position}", stream]
        rest = _run(second)
    _check(cut, rest)
    written = _shown(address, [(first, cut), (second, rest)])
    readme = _README.read_text()
    before, _, tail = readme.partition(_BEGIN)
    _, _, after = tail.partition(_END)
    if not after:
        raise SystemExit(f"{_README} lacks the markers {_BEGIN} and {_END}")
    _README.write_text(f"{before}{_BEGIN}\n{written}\n{_END}{after}")


def _ask(address: str) -> None:
    request = urllib.request.Request(  # noqa: S310  our own server
        f"{address}/api/chat",
        data=json.dumps({"session_id": _SESSION, "message": _QUESTION}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        response.read()


def _run(command: list[str]) -> list[str]:
    """Give what curl printed until its time was over, event by event."""
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    # An event without its empty line is one that was cut in the middle; it was never received.
    return ran.stdout.split("\n\n")[:-1]


def _last_position(events: list[str]) -> str:
    found = [event[len("id: ") : event.index("\n")] for event in events if event.startswith("id: ")]
    if not found:
        raise SystemExit("the stream was cut before its first position")
    return found[-1]


def _check(cut: list[str], rest: list[str]) -> None:
    text = ""
    for event in [*cut, *rest]:
        data = json.loads(event.rpartition("\ndata: ")[2]) if "\ndata: " in event else {}
        match _kind(event):
            case "history":
                text = data["messages"][-1]["content"]
            case "start":
                text = data["content"]
            case "chunk":
                if data["offset"] != len(text):
                    raise SystemExit(f"a chunk at {data['offset']} follows on {len(text)}")
                text += data["chunk"]
            case _:
                pass
    if text != _ANSWER or _kind(rest[-1]) != "message":
        raise SystemExit(f"the answer came as {text!r}")
    if _kind(cut[-1]) != "chunk" or "history" in map(_kind, rest):
        raise SystemExit("the stream was not cut in the middle of the answer; run this again")


def _kind(event: str) -> str:
    found = re.search(r"^event: (\w+)$", event, re.MULTILINE)
    return found[1] if found else ""


def _shown(address: str, steps: list[tuple[list[str], list[str]]]) -> str:
    asking = json.dumps({"session_id": _SESSION, "message": _QUESTION})
    lines = [
        f"$ curl -s -H 'Content-Type: application/json' -d '{asking}' \\",
        f"    {_SHOWN_ADDRESS}/api/chat > /dev/null",
    ]
    for command, events in steps:
        words = shlex.join(command).replace(address, _SHOWN_ADDRESS)
        lines += ["", f"$ {words}", *_trimmed(events)]
    return "\n".join(["```console", *lines, "```"])


def _trimmed(events: list[str]) -> list[str]:
    """Keep the first chunk and the last two, and of a long line its beginning."""
    chunks = [event for event in events if _kind(event) == "chunk"]
    lines: list[str] = []
    for event in events:
        if event in chunks[1:-2]:
            if event == chunks[1]:
                lines += ["…", ""]
            continue
        lines += [*map(_cut, event.split("\n")), ""]
    return lines[:-1]


def _cut(line: str) -> str:
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


if __name__ == "__main__":
    main()
