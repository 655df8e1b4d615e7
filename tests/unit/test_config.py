"""Settings: every mistake at once, no secret in any message, and a table that tells the truth."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.config import LauncherSettings, Settings, SettingsError, WebSettings, environment_with

SECRET = "a-secret-of-at-least-thirty-two-bytes"
ORIGIN = "https://chat.example.org"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def mistakes(**variables: str) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with pytest.raises(SettingsError) as raised:
            WebSettings(environment="development")
    assert str(raised.value) == "\n".join(raised.value.mistakes)
    return list(raised.value.mistakes)


def test_an_empty_environment_is_production_on_this_machine_only(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.environment == "production"
    assert not settings.is_development
    assert settings.host == "127.0.0.1"
    assert settings.data_dir == tmp_path / "data"
    assert settings.redis_address == f"unix://{tmp_path}/data/valkey/valkey.sock"
    assert settings.database_address == f"sqlite:///{tmp_path}/data/throughline.db"


def test_the_launcher_is_for_development_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert LauncherSettings().is_development
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("PUBLIC_ORIGIN", ORIGIN)
    assert not LauncherSettings().is_development


def test_variables_are_read_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8100")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1/throughline")
    monkeypatch.setenv("NOT_A_SETTING", "x")
    assert Settings().port == 8100
    assert Settings(port=8200).port == 8200
    assert Settings().redis_address == "redis://127.0.0.1:6379/0"
    assert Settings().database_address == "postgresql://127.0.0.1/throughline"


def test_nobody_is_a_trusted_proxy_unless_named() -> None:
    assert Settings().trusted_networks == ()
    named = Settings(trusted_proxies="10.0.0.0/8, 192.0.2.7,::1").trusted_networks
    assert [str(network) for network in named] == ["10.0.0.0/8", "192.0.2.7/32", "::1/128"]


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert Settings().model_dump(exclude={"node_id"}) == (
        Settings.model_construct(data_dir=Path("data").absolute()).model_dump(exclude={"node_id"})
    )


def test_every_mistake_is_named_at_once() -> None:
    assert mistakes(
        PORT="x",
        LOG_LEVEL="loud",
        LEASE_TTL_SECONDS="0.1",
        FLUSH_INTERVAL_MS="2.5",
        WEBSOCKET_DEFLATE="perhaps",
        NODE_ID="a:b",
        PUBLIC_ORIGIN="https://chat.example.org/path",
        MODEL_BASE_URL="https://models.example.org/v1",
    ) == [
        "PORT: must be a whole number from 1 to 65535, got 'x'",
        "NODE_ID: must be 1 to 64 letters, digits, '_', '.' or '-', got 'a:b'",
        "LOG_LEVEL: must be debug or info or warning or error, got 'loud'",
        (
            "PUBLIC_ORIGIN: must be of the form https://host or https://host:port, "
            "got 'https://chat.example.org/path'"
        ),
        "LEASE_TTL_SECONDS: must be 0.5 to 3600, got '0.1'",
        "FLUSH_INTERVAL_MS: must be a whole number from 0 to 1000, got '2.5'",
        "WEBSOCKET_DEFLATE: must be true or false, got 'perhaps'",
        "MODEL_NAME: must be set when MODEL_BASE_URL is",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("ENVIRONMENT", "test"),
        ("DATA_DIR", "what?"),
        ("MAX_ATTEMPTS", "0"),
        ("LEASE_TTL_SECONDS", "nan"),
        ("STREAM_HEARTBEAT_SECONDS", "inf"),
        ("FLUSH_INTERVAL_MS", "1001"),
        ("RATE_LIMIT_REQUESTS", "-1"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "10.0.0.1,"),
        ("TRUSTED_PROXIES", "proxy.example.org"),
        ("REDIS_URL", "http://127.0.0.1"),
        ("REDIS_URL", "redis://127.0.0.1:port"),
        ("DATABASE_URL", "sqlite://file.db"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "mysql://127.0.0.1/chat"),
        ("JWT_SECRET", "x" * 31),
    ],
)
def test_a_value_out_of_bounds_is_one_line(name: str, value: str) -> None:
    if name == "ENVIRONMENT":
        with pytest.raises(SettingsError) as raised:
            Settings(environment=value)
        found = list(raised.value.mistakes)
    else:
        found = mistakes(**{name: value})
    assert len(found) == 1
    assert found[0].startswith(f"{name}: must ")


def test_a_model_server_needs_its_address_and_its_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert mistakes(MODEL_NAME="m") == ["MODEL_BASE_URL: must be set when MODEL_NAME is"]
    assert mistakes(MODEL_DEFAULT="m") == ["MODEL_DEFAULT: must be one of demo"]
    assert mistakes(MODEL_NAME="two words", MODEL_BASE_URL="https://models.example.org") == [
        "MODEL_NAME: must be 1 to 200 printable ASCII characters without spaces, got 'two words'"
    ]
    monkeypatch.setenv("MODEL_NAME", "m")
    monkeypatch.setenv("MODEL_BASE_URL", "https://models.example.org/v1")
    for model in ("m", "demo"):
        assert Settings(model_default=model).model_default == model


def test_several_models_in_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "m")
    monkeypatch.setenv("MODEL_BASE_URL", "https://models.example.org/v1")
    monkeypatch.setenv("MODEL_API_KEY", "key-1")
    monkeypatch.setenv("OTHER_KEY", "key-3")
    monkeypatch.setenv(
        "MODELS",
        """[{"id": "a", "base_url": "http://a.example/v1", "api_key": "key-2", "continues": true},
            {"id": "b", "base_url": "http://b.example/v1", "api_key_env": "OTHER_KEY",
             "name": "Large B", "model": "b-70b", "context_tokens": 32000, "max_concurrent": 4}]""",
    )
    settings = Settings(model_default="b")
    assert [(one.id, one.api_key, one.continues) for one in settings.model_servers] == [
        ("m", "key-1", None),
        ("a", "key-2", True),
        ("b", "key-3", None),
    ]
    for key in ("key-1", "key-2", "key-3"):
        assert key not in repr(settings)
        assert key not in repr(settings.model_servers)


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ("opensesame", "must be a JSON list of models"),
        ('{"id": "a"}', "must be a JSON list of models: Expected `array`, got `object`"),
        (
            '[{"id": "a", "base_url": "http://a/v1", "opensesame": 1}]',
            (
                "must be a JSON list of models: an entry may have id, base_url, name, model, "
                "api_key, api_key_env, system_prompt, context_tokens, continues, max_concurrent"
            ),
        ),
        (
            '[{"id": "opensesame me", "base_url": "http://a/v1"}]',
            "entry 1: id must be 1 to 200 printable ASCII characters without spaces",
        ),
        (
            '[{"id": "a", "base_url": "ftp://u:opensesame@a/v1"}]',
            "a: base_url must be an address that begins with http://, https://",
        ),
        (
            '[{"id": "a", "base_url": "http://a/v1", "api_key": "opensesame", "api_key_env": "A"}]',
            "a: must have api_key or api_key_env, not both",
        ),
        (
            '[{"id": "a", "base_url": "http://a/v1", "context_tokens": 3}]',
            ("must be a JSON list of models: Expected `int` >= 256 - at `$[0].context_tokens`"),
        ),
        ('[{"id": "demo", "base_url": "http://a/v1"}]', "there are two models with the id demo"),
        (
            '[{"id": "a", "base_url": "http://a/v1", "api_key_env": "NOT_SET_ANYWHERE"}]',
            "the variable NOT_SET_ANYWHERE of a is not set",
        ),
    ],
)
def test_a_mistake_in_the_list_of_models_is_named_without_its_secrets(
    written: str, mistake: str
) -> None:
    assert mistakes(MODELS=written) == [f"MODELS: {mistake}"]
    assert "opensesame" not in mistake


def test_no_message_and_no_repr_shows_a_secret() -> None:
    password = "opensesame"
    lines = mistakes(
        REDIS_URL=f"redis+what://user:{password}@host",
        DATABASE_URL=f"mysql://user:{password}@host/chat",
        MODEL_BASE_URL=f"ftp://user:{password}@host/v1",
        MODEL_NAME="m",
        JWT_SECRET=password,
    )
    assert len(lines) == 4
    assert password not in "\n".join(lines)
    settings = Settings(
        redis_url=f"redis://user:{password}@host",
        database_url=f"postgresql://user:{password}@host/chat",
        jwt_secret=SecretStr(password * 4),
        model_api_key=SecretStr(password),
    )
    assert password not in repr(settings)
    assert password not in str(settings)


def test_production_needs_a_secret_where_tokens_are_checked() -> None:
    with pytest.raises(SettingsError, match=r"^JWT_SECRET: must be set in production"):
        WebSettings(public_origin=ORIGIN)
    settings = WebSettings(jwt_secret=SecretStr(SECRET), public_origin=ORIGIN)
    assert settings.signing_key() == SECRET.encode()
    with pytest.raises(SettingsError, match=r"^JWT_SECRET: must be set in production"):
        Settings().signing_key()


def test_production_needs_to_know_where_browsers_find_it() -> None:
    with pytest.raises(SettingsError, match=r"^PUBLIC_ORIGIN: must be set in production$"):
        WebSettings(jwt_secret=SecretStr(SECRET))


@pytest.mark.parametrize(
    "origin",
    ["*", "https://*", "https://*.example.org", "https://", "null", "chat.example.org"],
)
def test_an_origin_is_one_and_not_all_of_them(origin: str) -> None:
    (line,) = mistakes(PUBLIC_ORIGIN=origin)
    assert line.startswith("PUBLIC_ORIGIN: must be of the form https://host")


@pytest.mark.parametrize(
    "secret",
    [
        "x" * 64,
        "secret" * 8,
        "abcabc12" * 5,
        "change-me-change-me-change-me-now!",
        "please CHANGE_THIS to something of your own",
        "0123456789012345678901234567890123456789",
    ],
)
def test_a_secret_that_anybody_would_guess_is_for_laptops_only(secret: str) -> None:
    with pytest.raises(SettingsError) as raised:
        WebSettings(jwt_secret=SecretStr(secret), public_origin=ORIGIN)
    (line,) = raised.value.mistakes
    assert line.startswith("JWT_SECRET: must be random")
    assert secret not in line
    WebSettings(environment="development", jwt_secret=SecretStr(secret))


def test_development_makes_its_secret_once_for_its_owner_only() -> None:
    settings = Settings(environment="development")
    key = settings.signing_key()
    assert len(key) >= 32
    assert Settings(environment="development").signing_key() == key
    assert Settings().signing_key() == key, "a token made by hand must open the running service"
    assert stat.S_IMODE(settings.secret_file.stat().st_mode) == 0o600
    assert [file.name for file in settings.data_dir.iterdir()] == ["jwt_secret"]


def test_processes_that_start_together_make_one_secret(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        keys = pool.map(_key, [str(tmp_path / "data")] * 8, chunksize=1)
    assert len(set(keys)) == 1


def _key(data_dir: str) -> bytes:
    return Settings(environment="development", data_dir=Path(data_dir)).signing_key()


@pytest.mark.parametrize("content", ["", "short"])
def test_a_secret_file_that_is_too_short_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "jwt_secret").write_text(content)
    with pytest.raises(SettingsError, match="must hold 32 bytes or more"):
        Settings(environment="development", data_dir=tmp_path).signing_key()


def test_an_unwritable_directory_for_the_secret_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError) as raised:
        Settings(environment="development", data_dir=tmp_path / "file").signing_key()
    assert raised.value.mistakes == (f"DATA_DIR: {tmp_path}/file: File exists",)


def test_generated_node_ids_differ_and_suit_a_lease() -> None:
    first, second = Settings().node_id, Settings().node_id
    assert first != second
    assert Settings(node_id=first).node_id == first
    assert ":" not in first


def test_a_child_inherits_the_environment_and_what_is_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("PORT", "1")
    child = environment_with(PORT="2")
    assert (child["KEPT"], child["PORT"]) == ("1", "2")


def test_the_table_in_the_docs_is_the_truth() -> None:
    rows = []
    for name, field in Settings.model_fields.items():
        if field.default_factory is not None:
            default = "generated"
        elif field.default is None:
            default = "unset"
        elif isinstance(field.default, bool):
            default = f"`{str(field.default).lower()}`"
        else:
            default = (
                f"`{field.default:g}`"
                if isinstance(field.default, float)
                else (f"`{field.default}`")
            )
        rows.append(f"| `{name.upper()}` | {default} | {field.description} |")
    written = [
        line for line in OPERATIONS.read_text("utf-8").splitlines() if line.startswith("| `")
    ]
    settings_in_docs = [line for line in written if line.split("`")[1].isupper()]
    assert settings_in_docs == rows


def test_every_setting_is_described() -> None:
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undescribed == []
