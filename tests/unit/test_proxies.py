"""Whose address a request has: what proxies that are ours say, and what anybody may claim."""

from __future__ import annotations

from typing import Any

import pytest

from app.setting_rules import parse_networks
from app.web.proxies import UNKNOWN, address_of, apply, limited_address, parse_address, resolve

OURS = parse_networks("10.0.0.0/8, 192.0.2.7, fd00::/8")


def resolved(peer: str, *forwarded: str, proto: str | None = None, trusted: Any = OURS) -> Any:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    if proto is not None:
        headers.append((b"x-forwarded-proto", proto.encode("latin-1")))
    return resolve(peer, "http", headers, trusted)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Nobody of ours: the header is the client's own invention.
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("203.0.113.9", [], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        # What stands left of the one that our proxy saw is that one's word.
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.2, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["127.0.0.1, 203.0.113.9, 192.0.2.7, 10.9.9.9"], "203.0.113.9"),
        # A list may be written on several lines; a client's own line comes first.
        ("10.0.0.1", ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # IPv6, mapped IPv4, ports.
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("fd00::1", ["[2001:DB8::5]:443"], "2001:db8::5"),
        ("10.0.0.1", ["203.0.113.9:51234"], "203.0.113.9"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("fe80::1%eth0", ["198.51.100.1"], "fe80::1"),
        # What cannot be read ends the walk at the last proxy that could.
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:port"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8::5"], "10.0.0.1"),
        ("10.0.0.1", ["\xff\x00<script>"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9" + ", 10.0.0.2" * 100], "10.0.0.2"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_not_ours(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert resolved(peer, *forwarded) == (client, "http")


def test_nobody_is_trusted_unless_named() -> None:
    assert resolved("10.0.0.1", "203.0.113.9", proto="https", trusted=()) == ("10.0.0.1", "http")


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        # The last proxy's word is the rightmost.
        ("https, http", "http"),
        ("http, https", "https"),
        ("javascript", "http"),
        ("", "http"),
    ],
)
def test_the_scheme_is_the_last_proxys_word(proto: str, scheme: str) -> None:
    assert resolved("10.0.0.1", proto=proto) == ("10.0.0.1", scheme)
    assert resolved("203.0.113.9", proto=proto) == ("203.0.113.9", "http")


def test_a_websocket_keeps_a_scheme_of_its_own() -> None:
    said = [(b"x-forwarded-proto", b"https")]
    assert resolve("10.0.0.1", "ws", said, OURS) == ("10.0.0.1", "wss")


def scope_of(client: tuple[str, int] | None, **more: Any) -> Any:
    headers = [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https")]
    return {"type": "http", "client": client, "headers": headers} | more


def test_what_looks_at_the_scope_sees_the_client() -> None:
    scope = scope_of(("10.0.0.1", 4711), scheme="http")
    apply(scope, OURS)
    assert (scope["client"], scope["scheme"]) == (("203.0.113.9", 0), "https")
    assert address_of(scope) == "203.0.113.9"


@pytest.mark.parametrize("client", [None, ("", 0)])
def test_a_unix_socket_has_no_address_and_is_not_believed(client: Any) -> None:
    scope = scope_of(client)
    apply(scope, parse_networks("0.0.0.0/0, ::/0"))
    assert scope["client"] == client
    assert "scheme" not in scope
    assert address_of(scope) == UNKNOWN


def test_a_customers_ipv6_network_counts_as_one_address() -> None:
    assert limited_address("2001:db8:1:2:3::4") == limited_address("2001:db8:1:2::9")
    assert limited_address("2001:db8:1:2::1") != limited_address("2001:db8:1:3::1")
    assert limited_address("::ffff:203.0.113.9") == limited_address("203.0.113.9") == "203.0.113.9"
    assert limited_address(UNKNOWN) == UNKNOWN
    assert len(limited_address("x" * 1000)) == 64


@pytest.mark.parametrize("written", ["1.2.3", "1.2.3.4.5", "[1.2.3.4", "[::1]x", "::1]:80", "²"])
def test_what_is_no_address_is_none(written: str) -> None:
    assert parse_address(written) is None
