"""``throughline user …``: accounts from the command line, on a database without a server."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest

from app.cli import main
from app.config import Settings
from tests.support.logs import logging_restored

SECRET = "a-secret-of-at-least-thirty-two-bytes"
PASSWORD = "correct horse battery"
Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    with logging_restored():
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Give what runs a command, with a text as its stdin; gives status, stdout and stderr."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("PUBLIC_ORIGIN", "https://chat.example.org")

    def run(*arguments: str, stdin: str = "") -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main(arguments)
        told = capsys.readouterr()
        return status, told.out.splitlines(), told.err.splitlines()

    assert run("migrate")[0] == 0
    return run


def test_an_account_is_made_listed_and_shut(run: Run) -> None:
    made = run("user", "create", "ada", "--admin", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert made == (0, ["made ada, an administrator, who can sign in"], [])
    made = run("user", "create", "robot", "--no-password")
    assert made == (0, ["made robot, who has no password"], [])
    status, lines, _ = run("user", "list")
    assert status == 0
    assert [re.sub(r"\d{4}-\d\d-\d\d", "D", line) for line in lines] == [
        "ada  since D, administrator",
        "robot  since D, no password",
    ]
    status, lines, _ = run("user", "disable", "robot")
    assert (status, lines) == (0, ["robot is disabled: every sign-in and every token has ended"])
    assert "disabled" in run("user", "list")[1][1]
    assert run("token", "robot") == (1, [], ["throughline: the user robot is disabled"])


def test_a_token_has_the_roles_of_its_user(run: Run) -> None:
    run("user", "create", "ada", "--admin", "--no-password")
    (token,) = run("token", "ada")[1]
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert claims["roles"] == ["admin"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("disable", "nobody"), "", "there is no user nobody"),
        (("create", "ada", "--password-stdin"), "", "there is no password on stdin"),
        (("create", "ada", "--password-stdin"), "short\n", "the password must have 8 to 256"),
        (("create", "ada"), PASSWORD, "there is no terminal to ask for a password"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run, arguments: tuple[str, ...], stdin: str, said: str
) -> None:
    status, out, err = run("user", *arguments, stdin=stdin)
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"throughline: {said}")
    assert run("user", "list")[1] == ["there is no account yet"]


def test_a_name_is_taken_once(run: Run) -> None:
    assert run("user", "create", "ada", "--no-password")[0] == 0
    again = run("user", "create", "Ada", "--no-password")
    assert again == (1, [], ["throughline: the name Ada is taken"])


def test_an_invitation_is_a_link_to_where_browsers_find_us(run: Run) -> None:
    (link,) = run("user", "invite")[1]
    assert re.fullmatch(r"https://chat\.example\.org/sign-up\?invitation=[\w-]{32}", link)
    assert run("user", "invite")[1] != [link]
