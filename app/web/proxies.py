"""Where a request really comes from: what proxies say, as far as they are ours.

Only ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are read. A proxy that sets these hands on a
``Forwarded`` header (RFC 7239) as the client wrote it, so that reading both would be reading lies.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from litestar.types import HTTPScope, WebSocketScope

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks: TypeAlias = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
_Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

UNKNOWN: Final = "unknown"
"""The address of a client of which none is known: a unix socket's."""

_HOPS_MAX: Final = 32
_SECURE: Final = {"http": "https", "ws": "wss", "https": "https", "wss": "wss"}
_PLAIN: Final = {"http": "http", "ws": "ws", "https": "http", "wss": "ws"}
_IPV6_PREFIX: Final = 64


def resolve(peer: str, scheme: str, headers: _Headers, trusted: Networks) -> tuple[str, str]:
    """Give the client's address, and the scheme under which it reached the outermost proxy.

    ``peer`` is who is connected. Where it is trusted, the address is the rightmost one of
    ``X-Forwarded-For`` that is not: each proxy adds on the right whom it saw, and what stands left
    of an untrusted one is that one's word. What cannot be read ends the walk: the last proxy that
    could be is the client then.
    """
    found = parse_address(peer)
    if found is None or not _is_in(found, trusted):
        return (str(found) if found else peer), scheme
    said = list(headers)
    hops = [hop for value in _values(said, b"x-forwarded-for") for hop in value.split(",")]
    for hop in reversed(hops[-_HOPS_MAX:]):
        address = parse_address(hop.strip())
        if address is None:
            break
        found = address
        if not _is_in(address, trusted):
            break
    protocols = [p for value in _values(said, b"x-forwarded-proto") for p in value.split(",")]
    protocol = protocols[-1].strip().lower() if protocols else ""
    changed = {"https": _SECURE, "wss": _SECURE, "http": _PLAIN, "ws": _PLAIN}.get(protocol, {})
    return str(found), changed.get(scheme, scheme)


def apply(scope: HTTPScope | WebSocketScope, trusted: Networks) -> None:
    """Write the client's address and scheme into the scope, for everything that looks there."""
    client = scope.get("client")
    if client is None or not client[0]:
        return
    before = scope.get("scheme") or "http"
    address, scheme = resolve(client[0], before, scope["headers"], trusted)
    if address != client[0]:
        scope["client"] = (address, 0)  # which port it had nobody says
    if scheme != before:
        scope["scheme"] = scheme


def address_of(scope: HTTPScope | WebSocketScope) -> str:
    """Give the client's address, or ``UNKNOWN``."""
    client = scope.get("client")
    return client[0] if client and client[0] else UNKNOWN


def limited_address(address: str) -> str:
    """Give what counts as one address: of IPv6, the network that one customer is given."""
    found = parse_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found) if found else address[:64]


def parse_address(written: str) -> Address | None:
    """Read an address, with or without a port, in brackets or not; None for anything else."""
    if written.startswith("["):
        written, bracket, rest = written[1:].partition("]")
        if not bracket or (rest and not _is_port(rest)):
            return None
    elif written.count(":") == 1:
        written, _, port = written.partition(":")
        if not _is_port(f":{port}"):
            return None
    try:
        found = ipaddress.ip_address(written.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        return found.ipv4_mapped
    return found


def _is_port(written: str) -> bool:
    return written[:1] == ":" and written[1:].isascii() and written[1:].isdecimal()


def _is_in(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


def _values(headers: _Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]
