"""The doctor on real parts: well, and with one thing wrong at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.db import migrate
from app.doctor import Finding, Installation, Verdict, examine, status
from app.signing_key import make_key
from app.streams.connection import connect
from app.streams.embedded import EmbeddedRedis


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    embedded = EmbeddedRedis(tmp_path)
    await embedded.start()
    yield embedded
    await embedded.stop()


@pytest.fixture
async def installation(tmp_path: Path, embedded: EmbeddedRedis) -> Installation:
    file = tmp_path / "throughline.db"
    await migrate.upgrade(f"sqlite:///{file}")
    make_key(tmp_path / "jwt_secret")
    return Installation(
        data_dir=tmp_path,
        redis_address=embedded.url,
        database_address=f"sqlite:///{file}",
        database_file=file,
        secret_file=tmp_path / "jwt_secret",
    )


async def examined(installation: Installation) -> list[Finding]:
    return [finding async for finding in examine(installation)]


async def test_a_fresh_installation_is_well(installation: Installation) -> None:
    findings = await examined(installation)
    assert {finding.verdict for finding in findings if finding.subject != "Disk"} == {Verdict.OK}
    assert [finding.subject for finding in findings] == [
        "Redis version",
        "Redis persistence",
        "Redis eviction",
        "Clock",
        "Database",
        "Disk",
        "JWT secret",
    ]


async def test_settings_that_may_lose_data_are_named(installation: Installation) -> None:
    redis = connect(installation.redis_address, timeout_seconds=5, max_connections=1)
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    await redis.config_set("appendonly", "no")
    await redis.aclose(close_connection_pool=True)
    found = {finding.subject: finding for finding in await examined(installation)}
    assert found["Redis eviction"].verdict is Verdict.FAIL
    assert "allkeys-lru" in found["Redis eviction"].text
    assert found["Redis persistence"].verdict is Verdict.WARN
    assert status(list(found.values())) == 1


async def test_a_database_without_its_migrations_is_named(installation: Installation) -> None:
    await migrate.downgrade(installation.database_address)
    found = {finding.subject: finding for finding in await examined(installation)}
    assert found["Database"].verdict is Verdict.FAIL
    assert "run `throughline migrate`" in found["Database"].text


async def test_a_server_that_does_not_answer_is_one_finding(
    installation: Installation, embedded: EmbeddedRedis
) -> None:
    await embedded.stop()
    found = {finding.subject: finding for finding in await examined(installation)}
    assert found["Redis"].verdict is Verdict.FAIL
    assert found["Database"].verdict is Verdict.OK


async def test_a_secret_that_others_can_read_is_named(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "jwt_secret").chmod(0o644)
    (finding,) = [one for one in await examined(installation) if one.subject == "JWT secret"]
    assert finding.verdict is Verdict.WARN
    assert "chmod 600" in finding.text
