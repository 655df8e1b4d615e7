"""Model servers as an operator writes them down (``MODELS``)."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

Tokens = Annotated[int, msgspec.Meta(ge=256, le=100_000_000)]
Places = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Prompt = Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]


class ModelServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model of one OpenAI-compatible server; what is None is as the general settings say."""

    id: str
    """What a question's ``model`` says."""
    base_url: str
    """``https://host/v1``."""
    name: str | None = None
    """What people call it; the id where absent."""
    model: str | None = None
    """What the server calls it; the id where absent."""
    api_key: str | None = None
    api_key_env: str | None = None
    """The environment variable that holds the key, for a list that is to hold none."""
    system_prompt: Prompt | None = None
    context_tokens: Tokens | None = None
    continues: bool | None = None
    """Whether it goes on with an answer that had been begun; None: the server is asked."""
    max_concurrent: Places | None = None

    def __repr__(self) -> str:
        """Say which one it is, without the key and without an address that may hold one."""
        return f"ModelServer({self.id!r})"

    @property
    def upstream(self) -> str:
        """The host and port that all models of this server share."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or parts.scheme}"


class ModelLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every model of a server unless it says otherwise."""

    connect_seconds: float = 10.0
    first_token_seconds: float = 120.0
    silence_seconds: float = 60.0
    retries: int = 2
    retry_after_seconds: float = 20.0
    circuit_failures: int = 5
    circuit_seconds: float = 10.0
    concurrency: int = 100
    wait_seconds: float = 120.0
    context_tokens: int = 8192
    system_prompt: str | None = None


def parse_servers(written: str) -> list[ModelServer]:
    """Read a JSON list of servers.

    Raises ValueError with what it must be; the message repeats nothing of the list, which may hold
    keys.
    """
    try:
        return msgspec.json.decode(written, type=list[ModelServer])
    except msgspec.ValidationError as error:
        # «Expected `str`, got `int` - at `$[0].id`»: types, bounds and names of members only,
        # but for a member that nobody knows, whose name may be a value that lost its quotes.
        what = str(error)
        if "unknown field" in what:
            known = ", ".join(field.name for field in msgspec.structs.fields(ModelServer))
            what = f"an entry may have {known}"
        raise ValueError(f"must be a JSON list of models: {what}") from None
    except msgspec.DecodeError:
        raise ValueError("must be a JSON list of models") from None
