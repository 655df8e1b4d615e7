"""The local model's server as a process, and what is said where a part of it is missing."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from app import local_model
from app.config import LauncherSettings, Settings, SettingsError, environment_with
from app.launcher import LocalModel, local_model_of
from app.local_model import LocalModelMissing, Weights, find_weights
from app.models.servers import ModelServer, parse_servers
from tests.support.llama import missing_parts

KEY = "a-key-for-this-test"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.model
@pytest.mark.timeout(120)
async def test_it_serves_whoever_has_the_key_until_it_is_told_to_stop() -> None:
    if missing := missing_parts():
        pytest.skip(missing)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "app", "model"),
        env=environment_with(MODEL_LOCAL_KEY=KEY, MODEL_LOCAL_CONTEXT_TOKENS="512"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            refused = await client.post("/chat/completions", json=body)
            answered = await client.post(
                "/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}
            )
    finally:
        process.terminate()
        status = await process.wait()
    assert address.startswith("http://127.0.0.1:")
    assert address.endswith("/v1")
    assert refused.status_code == 401
    assert answered.status_code == 200
    assert status == 0


def test_what_is_missing_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_package(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(local_model, "find_spec", lambda _: object())
    monkeypatch.setattr(local_model, "distribution", no_package)
    with pytest.raises(LocalModelMissing, match="weights are not installed; `make run MODEL=local"):
        find_weights(None)
    with pytest.raises(LocalModelMissing, match="MODEL_LOCAL_FILE: there is no file"):
        find_weights(tmp_path / "none.gguf")
    own = tmp_path / "own-7b.gguf"
    own.write_bytes(b"\0" * 2_000_000)
    assert find_weights(own).described == "own-7b (2 MB)"
    monkeypatch.setattr(local_model, "find_spec", lambda _: None)
    with pytest.raises(LocalModelMissing, match=r"llama\.cpp is not installed"):
        find_weights(own)


def test_it_is_started_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "own-7b.gguf"
    own.write_bytes(b"")
    monkeypatch.setattr(local_model, "find_spec", lambda _: object())
    assert local_model_of(LauncherSettings()) is None
    started = local_model_of(LauncherSettings(model_local_file=own))
    assert started is not None
    assert started.weights.file == own
    assert local_model_of(LauncherSettings(model_default="local", model_local_file=own)) is not None
    with pytest.raises(SettingsError, match=r"^MODEL_DEFAULT: must be one of demo$"):
        Settings(model_default="local")


def test_a_model_of_ones_own_by_that_name_is_left_alone(tmp_path: Path) -> None:
    listed = '[{"id": "local", "base_url": "http://127.0.0.1:9/v1"}]'
    assert local_model_of(LauncherSettings(model_default="local", models=listed)) is None


def test_it_stands_beside_the_models_that_are_set_up() -> None:
    local = LocalModel(Weights(Path("own.gguf"), "own"), 9, "key", 4096)
    beside = parse_servers(local.beside('[{"id": "a", "base_url": "http://a/v1"}]'))
    assert beside == [
        ModelServer(id="a", base_url="http://a/v1"),
        ModelServer(
            id="local",
            name="own",
            base_url="http://127.0.0.1:9/v1",
            api_key="key",
            context_tokens=4096,
            continues=True,
            max_concurrent=local_model.PLACES,
        ),
    ]
    assert [one.id for one in parse_servers(local.beside(None))] == ["local"]
