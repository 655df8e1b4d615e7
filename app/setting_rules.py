"""What single settings must look like: a check gives the value, or raises ValueError with «must».

No message repeats the value: an address may carry a password.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import urlsplit

import msgspec

from app.models.servers import parse_servers
from app.signing_key import KEY_MIN_BYTES

_NODE_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_MODEL_NAME = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_POSTGRESQL_SCHEMES = ("postgresql", "postgresql+psycopg")
_SQLITE_SCHEMES = ("sqlite", "sqlite+aiosqlite")
_HTTP_SCHEMES = ("http", "https")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SECRET_MIN_DIFFERENT = 8
_EXAMPLES = (
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "yoursecret",
    "mysecret",
    "0123456789",
)


def node_id(value: str) -> str:
    """Check a process's name: a lease's owner is ``<node_id>:<token>``, so no colon."""
    if _NODE_ID.fullmatch(value) is None:
        raise ValueError("must be 1 to 64 letters, digits, '_', '.' or '-'")
    return value


def model_name(value: str) -> str:
    """Check the name of a model, as its server knows it."""
    if _MODEL_NAME.fullmatch(value) is None:
        raise ValueError("must be 1 to 200 printable ASCII characters without spaces")
    return value


def model_list(value: str) -> str:
    """Check a JSON list of model servers."""
    for number, server in enumerate(parse_servers(value), start=1):
        try:
            model_name(server.id)
        except ValueError as error:
            raise ValueError(f"entry {number}: id {error}") from None
        try:
            http_address(server.base_url)
        except ValueError as error:
            raise ValueError(f"{server.id}: base_url {error}") from None
        if server.api_key is not None and server.api_key_env is not None:
            raise ValueError(f"{server.id}: must have api_key or api_key_env, not both")
    return value


def origin(value: str) -> str:
    """Check an origin as a browser sends it (RFC 6454), a final slash taken off."""
    written = value.rstrip("/")
    parts = urlsplit(written)
    if (
        parts.scheme not in _HTTP_SCHEMES
        or written != f"{parts.scheme}://{parts.netloc}"
        or not parts.netloc
        or "*" in written
    ):
        raise ValueError("must be of the form https://host or https://host:port")
    return written


def is_guessable(secret: str) -> bool:
    """Say whether a secret is an example that somebody left in place, or hardly any characters.

    It cannot tell a weak one that was chosen with care: that is what random ones are for.
    """
    folded = re.sub(r"[^a-z0-9]", "", secret.lower())
    repeats = secret in (secret + secret)[1:-1]
    return (
        repeats
        or len(set(secret)) < _SECRET_MIN_DIFFERENT
        or any(example in folded for example in _EXAMPLES)
    )


def networks(value: str) -> str:
    """Check a list of addresses and networks, separated by commas."""
    try:
        parse_networks(value)
    except ValueError:
        raise ValueError(
            "must be addresses or networks such as 10.0.0.0/8, separated by commas"
        ) from None
    return value


def parse_networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Read such a list; an address is a network of one."""
    return tuple(ip_network(part.strip()) for part in value.split(","))


def redis_address(value: str) -> str:
    """Check the address of a Redis server."""
    return _address(value, _REDIS_SCHEMES)


def http_address(value: str) -> str:
    """Check the address of an HTTP service."""
    return _address(value, _HTTP_SCHEMES)


def key_address(value: str) -> str:
    """Check where another issuer's keys are: nobody on the way may exchange them."""
    _address(value, _HTTP_SCHEMES)
    parts = urlsplit(value)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("must be an address that begins with https://, but for this machine's own")
    return value


def parse_secrets(written: str) -> list[bytes]:
    """Read a JSON list of secrets, KEY_MIN_BYTES or more each; raise ValueError for another."""
    try:
        found = msgspec.json.decode(written, type=list[str])
    except msgspec.MsgspecError:
        raise ValueError("must be a JSON list of secrets") from None
    keys = [secret.encode() for secret in found]
    if any(len(key) < KEY_MIN_BYTES for key in keys):
        raise ValueError(f"must hold secrets of {KEY_MIN_BYTES} bytes or more")
    return keys


def database_address(value: str) -> str:
    """Check the address of a database: a PostgreSQL server or a SQLite file."""
    if value.partition(":")[0] not in _SQLITE_SCHEMES:
        return _address(value, (*_POSTGRESQL_SCHEMES, *_SQLITE_SCHEMES))
    parts = urlsplit(value)
    # Each connection of a pool would have a memory database of its own.
    if parts.netloc or parts.path in {"", "/", "/:memory:"}:
        raise ValueError("must name a file: sqlite:///path/to/file.db")
    return value


def _address(value: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in schemes and bool(parts.netloc or parts.path)
        if parts.scheme != "unix":
            usable = usable and parts.port != 0
    except ValueError:  # a port that is no number, a host with half a bracket
        usable = False
    if not usable:
        raise ValueError(
            f"must be an address that begins with {', '.join(f'{name}://' for name in schemes)}"
        )
    return value
