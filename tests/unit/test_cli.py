"""The command line: what it prints, what it refuses in one line, and with which status."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jwt
import pytest

from app.cli import main
from app.config import Settings
from app.doctor import (
    Verdict,
    clock_finding,
    disk_finding,
    eviction_finding,
    persistence_finding,
    version_finding,
)
from tests.support.logs import logging_restored

SECRET = "a-secret-of-at-least-thirty-two-bytes"
DECODER = jwt.PyJWT(options={"enforce_minimum_key_length": True})


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    with logging_restored():
        yield


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Run what is to fail; give its status and the lines on stderr."""
    try:
        status = main(arguments)
    except SystemExit as exit_:
        status = int(str(exit_.code))
    written = capsys.readouterr()
    assert written.out == ""
    return status, written.err.splitlines()


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "throughline: the following arguments are required: COMMAND"),
        (("up", "--web", "0"), "throughline up: argument --web: must be 1 to 64, got '0'"),
        (("up", "--workers", "x"), "throughline up: argument --workers: must be 0 to 64, got 'x'"),
        (
            ("up", "--web", "1.5"),
            "throughline up: argument --web: must be a whole number, got '1.5'",
        ),
        (("up", "--what"), "throughline: unrecognized arguments: --what"),
        (("token", " "), "throughline token: argument NAME: must not begin or end with a space"),
        (
            ("token", "x" * 65),
            "throughline token: argument NAME: must be 1 to 64 printable characters",
        ),
        (
            ("token", "a\x00"),
            "throughline token: argument NAME: must be 1 to 64 printable characters",
        ),
        (
            ("token", "alice", "--hours", "nan"),
            "throughline token: argument --hours: must be 0.01 to 8760, got 'nan'",
        ),
        (("up", "--port", "x"), "PORT: must be a whole number from 1 to 65535, got 'x'"),
        (("web", "--port", "0"), "PORT: must be a whole number from 1 to 65535, got '0'"),
        (("up", "--model", "x"), "MODEL_DEFAULT: must be one of demo, local"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str],
    line: str,
) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("PUBLIC_ORIGIN", "https://chat.example.org")
    assert failing(capsys, *arguments) == (2, [line])


def test_an_unknown_role_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, (line,) = failing(capsys, "worker", "audit")
    assert status == 2
    assert "audit" in line
    assert "generation" in line


@pytest.mark.parametrize(
    "command", [("up",), ("web",), ("worker", "generation"), ("migrate",), ("doctor",)]
)
def test_every_command_names_every_broken_setting(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: Sequence[str],
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "development")
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("MAX_ATTEMPTS", "0")
    assert failing(capsys, *command) == (
        2,
        [
            "PORT: must be a whole number from 1 to 65535, got 'x'",
            "MAX_ATTEMPTS: must be a whole number from 1 to 100, got '0'",
        ],
    )


def test_a_web_node_in_production_needs_a_secret_and_its_origin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, (secret, origin) = failing(capsys, "web")
    assert status == 2
    assert secret.startswith("JWT_SECRET: must be set in production")
    assert origin == "PUBLIC_ORIGIN: must be set in production"


@pytest.mark.parametrize("command", [("web",), ("worker", "generation")])
def test_a_role_without_redis_says_what_to_start(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    data_dir: Path,
    command: Sequence[str],
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "development")
    status, (line,) = failing(capsys, *command)
    assert status == 1
    assert line.startswith("throughline: REDIS_URL is not set and no embedded server runs in ")
    assert f"{data_dir}; start `throughline up` first" in line


def test_a_token_is_all_that_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    assert printed(capsys, "migrate") == ""
    claims = [
        DECODER.decode(printed(capsys, "token", name).strip(), SECRET, algorithms=["HS256"])
        for name in ("alice", "alice", "bob", "dev")
    ]
    alice, again, bob, dev = (claim["sub"] for claim in claims)
    assert alice == again
    assert len({alice, bob, dev}) == 3
    assert dev == "dev"
    assert claims[0]["name"] == "alice"
    assert claims[0]["roles"] == []
    assert claims[0]["exp"] - claims[0]["iat"] == pytest.approx(43_200, abs=1)
    assert abs(claims[0]["iat"] - time.time()) < 60


def test_a_token_carries_what_was_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "development")
    monkeypatch.setenv("JWT_ISSUER", "https://issuer.example.org")
    monkeypatch.setenv("JWT_AUDIENCE", "throughline")
    main(["migrate"])
    token = printed(capsys, "token", "alice", "--admin", "--hours", "0.5").strip()
    claims = DECODER.decode(
        token,
        Settings(environment="development").signing_key(),
        algorithms=["HS256"],
        issuer="https://issuer.example.org",
        audience="throughline",
    )
    assert claims["roles"] == ["admin"]
    assert claims["exp"] - claims["iat"] == pytest.approx(1800, abs=1)


def test_a_token_wants_a_database_that_is_up_to_date(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    wanted = (1, ["throughline: the database is not up to date; run `throughline migrate`"])
    assert failing(capsys, "token", "alice") == wanted
    assert not (data_dir / "throughline.db").exists(), "asking must not make a database"


def test_a_token_without_any_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, "token", "alice") == (2, ["JWT_SECRET: must be set in production"])


def test_an_unwritable_data_directory_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "file"))
    assert failing(capsys, "migrate") == (1, [f"throughline: {tmp_path}/file: File exists"])


@pytest.fixture
def broken_database(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "throughline.db").write_bytes(b"this is no database" * 100)


@pytest.mark.usefixtures("broken_database")
def test_a_file_that_is_no_database_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, "migrate") == (
        1,
        ["throughline: the database cannot be migrated: file is not a database"],
    )
    assert main(["doctor"]) == 1
    assert "fail  Database: file is not a database; restore" in capsys.readouterr().out


def test_a_new_data_directory_is_its_owner_s_alone(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    printed(capsys, "migrate")
    assert data_dir.stat().st_mode & 0o777 == 0o700


def test_the_doctor_names_what_is_missing(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ok    Settings: production, data in {data_dir}"
    assert any(line.startswith("fail  Redis: does not answer") for line in lines)
    assert "fail  Database: no SQLite file yet; run `throughline migrate`" in lines
    assert not data_dir.exists(), "looking must not change anything"


def test_help_needs_nothing_that_is_slow_to_import() -> None:
    code = (
        "import sys\nfrom app.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'litestar', 'sqlalchemy', 'redis', 'pydantic', 'openai', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def test_it_runs_as_a_module_too() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "app", "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("throughline ")


@pytest.mark.parametrize(
    ("information", "verdict"),
    [
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, Verdict.OK),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.0"}, Verdict.OK),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, Verdict.WARN),
        ({"redis_version": "7.0.0"}, Verdict.OK),
        ({"redis_version": "8.2.1"}, Verdict.OK),
        ({"redis_version": "9.0.0"}, Verdict.WARN),
        ({"redis_version": "6.2.14"}, Verdict.FAIL),
    ],
)
def test_the_doctor_knows_the_versions(information: dict[str, str], verdict: Verdict) -> None:
    assert version_finding(information).verdict is verdict


@pytest.mark.parametrize(
    ("information", "verdict"),
    [
        ({"aof_enabled": 1, "aof_last_write_status": "ok"}, Verdict.OK),
        ({"aof_enabled": 0, "aof_last_write_status": "ok"}, Verdict.WARN),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, Verdict.FAIL),
    ],
)
def test_the_doctor_looks_at_persistence(information: dict[str, object], verdict: Verdict) -> None:
    assert persistence_finding(information).verdict is verdict


def test_the_doctor_wants_no_eviction() -> None:
    assert eviction_finding("noeviction").verdict is Verdict.OK
    assert eviction_finding("allkeys-lru").verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        (100.5, Verdict.OK),
        (99.5, Verdict.OK),
        (102.0, Verdict.OK),
        (98.5, Verdict.WARN),
        (102.5, Verdict.WARN),
    ],
)
def test_the_doctor_compares_clocks_around_the_question(theirs: float, verdict: Verdict) -> None:
    assert clock_finding(theirs, before=100.0, after=101.0).verdict is verdict


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(2 * 1024**3, Verdict.OK), (500 * 1024**2, Verdict.WARN), (50 * 1024**2, Verdict.FAIL)],
)
def test_the_doctor_looks_at_the_disk(tmp_path: Path, free: int, verdict: Verdict) -> None:
    assert disk_finding(free, tmp_path).verdict is verdict
