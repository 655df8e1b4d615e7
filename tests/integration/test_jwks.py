"""Keys of another issuer over HTTP: found when needed, and at a bounded cost whatever happens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from app.accounts.jwks import Jwks, JwksLimits
from app.domain.errors import Unavailable
from tests.support.issuer import Issuer, issuer, public_jwk
from tests.support.waiting import eventually
from tests.support.web import serving

EC = ec.generate_private_key(ec.SECP256R1())
EC_NEXT = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
# So patient that a machine that stands still for a while changes nothing.
PATIENT = JwksLimits(fetch_seconds=30)


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def source() -> AsyncIterator[Issuer]:
    async with issuer() as running:
        running.rotate("one", EC)
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def keys_of(
    source: Issuer, clock: Callable[[], float], limits: JwksLimits = PATIENT, **options: Any
) -> AsyncIterator[Jwks]:
    jwks = Jwks(source.url, limits=limits, clock=clock, **options)
    try:
        yield jwks
    finally:
        await jwks.close()


async def settled(jwks: Jwks) -> None:
    await eventually(lambda: jwks._fetching is None, "the fetch has ended")


async def test_a_rotated_key_is_found_and_many_ask_once(source: Issuer, clock: Clock) -> None:
    async with keys_of(source, clock) as jwks:
        found = await asyncio.gather(*(jwks.find("one") for _ in range(50)))
        assert {one.algorithm for one in found if one is not None} == {"ES256"}
        assert None not in found
        assert source.fetches == 1
        source.rotate("two", EC_NEXT)
        clock.now += PATIENT.pause_seconds
        assert await jwks.find("two") is not None
        assert source.fetches == 2
        assert await jwks.find("one") is None


async def test_a_storm_of_unknown_ids_costs_one_fetch_a_pause(source: Issuer, clock: Clock) -> None:
    async with keys_of(source, clock) as jwks:
        assert await jwks.find("one") is not None
        clock.now += PATIENT.pause_seconds
        for number in range(200):
            assert await jwks.find(f"unknown-{number}") is None
        await asyncio.gather(*(jwks.find(f"other-{number}") for number in range(200)))
        assert source.fetches == 2
        clock.now += PATIENT.pause_seconds - 0.1
        assert await jwks.find("unknown") is None
        assert source.fetches == 2


async def test_known_keys_outlast_the_issuer_and_not_for_ever(source: Issuer, clock: Clock) -> None:
    async with keys_of(source, clock) as jwks:
        assert await jwks.find("one") is not None
        source.head = b"HTTP/1.1 503 Away\r\nConnection: close\r\n"
        clock.now += PATIENT.fresh_seconds
        assert await jwks.find("one") is not None
        await settled(jwks)
        assert source.fetches == 2
        with pytest.raises(Unavailable):
            # It may be a new one: nobody can say that it is not.
            await jwks.find("two")
        clock.now += PATIENT.stale_seconds
        with pytest.raises(Unavailable):
            await jwks.find("one")
        source.head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
        clock.now += PATIENT.retry_seconds
        assert await jwks.find("one") is not None


async def test_while_a_slow_issuer_is_asked_known_keys_wait_for_nothing(
    source: Issuer, clock: Clock
) -> None:
    async with keys_of(source, clock) as jwks:
        assert await jwks.find("one") is not None
        source.open.clear()
        clock.now += PATIENT.fresh_seconds
        waiting = asyncio.create_task(jwks.find("two"))
        left = asyncio.create_task(jwks.find("two"))
        await eventually(lambda: source.fetches == 2, "the issuer is asked")
        assert await jwks.find("one") is not None
        left.cancel()
        source.rotate("two", EC_NEXT)
        source.open.set()
        assert await waiting is not None, "another's leaving must not end the fetch"
        assert source.fetches == 2


async def test_an_issuer_that_never_answers_is_given_up(source: Issuer) -> None:
    source.open.clear()
    async with keys_of(source, time.monotonic, JwksLimits(fetch_seconds=0.1)) as jwks:
        with pytest.raises(Unavailable):
            await jwks.find("one")


async def test_an_issuer_that_is_not_there_is_asked_once_a_while(
    source: Issuer, clock: Clock
) -> None:
    async with keys_of(source, clock) as jwks:
        source.head = b"HTTP/1.1 500 No\r\nConnection: close\r\n"
        for _ in range(20):
            with pytest.raises(Unavailable):
                await jwks.find("one")
        assert source.fetches == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"keys": {}}',
        b'{"keys": [1]}',
        b"<html>",
        b'{"keys": [' + b"[" * 5000,
        b'{"keys": [' + b"{}," * 101 + b"{}]}",
        b" " * 300_000,
    ],
    ids=lambda body: body[:12].decode(),
)
async def test_an_answer_that_is_no_set_changes_nothing(
    source: Issuer, clock: Clock, body: bytes
) -> None:
    async with keys_of(source, clock) as jwks:
        assert await jwks.find("one") is not None
        source.body = body
        clock.now += PATIENT.pause_seconds
        with pytest.raises(Unavailable):
            await jwks.find("two")
        assert await jwks.find("one") is not None


async def test_an_answer_without_end_is_left(source: Issuer, clock: Clock) -> None:
    source.head += b"Content-Length: 1000000000000\r\n"
    source.body = b'{"keys": [' + b" " * 1_000_000
    async with keys_of(source, clock) as jwks:
        with pytest.raises(Unavailable):
            await jwks.find("one")


async def test_an_answer_that_is_too_long_is_left_however_good(
    source: Issuer, clock: Clock
) -> None:
    source.body = json.dumps({"keys": source.keys}).encode() + b" " * 300_000
    async with keys_of(source, clock) as jwks:
        with pytest.raises(Unavailable):
            await jwks.find("one")


async def test_a_redirect_is_not_followed(source: Issuer, clock: Clock) -> None:
    async with issuer() as elsewhere, keys_of(source, clock) as jwks:
        elsewhere.rotate("one", EC)
        source.head = (
            b"HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: %s\r\n" % elsewhere.url.encode()
        )
        with pytest.raises(Unavailable):
            await jwks.find("one")
        assert elsewhere.fetches == 0


async def test_keys_that_cannot_be_meant_are_left_out(source: Issuer, clock: Clock) -> None:
    good = public_jwk(EC)
    source.keys = [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "secret"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "secret-2"},
        good | {"kid": "encrypts", "use": "enc"},
        good | {"kid": "confused", "alg": "RS256"},
        good | {"kid": "hmac", "alg": "HS256"},
        good | {"kid": "none", "alg": "none"},
        good | {"kid": "odd", "alg": ["ES256"]},
        good | {"kid": "private", "d": "AAAA"},
        good | {"kid": ["list"]},
        {"kid": "empty"},
        {"kty": "EC", "crv": "P-256", "x": "!", "y": "!", "kid": "broken"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "weak"},
        good | {"kid": "good"},
        public_jwk(ED) | {"kid": "edwards"},
    ]
    async with keys_of(source, clock) as jwks:
        assert await jwks.find("good") is not None
        found = jwks._keys
        assert found is not None
        assert {kid: key.algorithm for kid, key in found.items()} == {
            "good": "ES256",
            "edwards": "EdDSA",
        }
        assert await jwks.find(None) is None, "which of two is meant is not guessed"


async def test_a_pinned_algorithm_leaves_out_all_others(source: Issuer, clock: Clock) -> None:
    source.keys = [
        public_jwk(RSA) | {"kid": "plain"},
        public_jwk(RSA) | {"kid": "other", "alg": "RS256"},
        public_jwk(EC) | {"kid": "curve"},
    ]
    async with keys_of(source, clock, algorithm="PS256") as jwks:
        found = await jwks.find(None)
        assert found is not None
        assert found.algorithm == "PS256"
        assert await jwks.find("other") is None
        assert await jwks.find("curve") is None


async def test_a_node_takes_the_issuers_tokens_its_own_and_no_others(
    source: Issuer, tmp_path: Path
) -> None:
    claims = {
        "sub": "grace", "exp": int(time.time()) + 300, "iss": "them", "aud": "chat"
    }  # fmt: skip
    async with serving(
        tmp_path, worker=False, jwt_jwks_url=source.url, jwt_issuer="them", jwt_audience="chat"
    ) as node:
        for token, status in (
            (source.sign("one", "ES256", claims), 200),
            (source.sign("one", "ES256", claims | {"iss": "throughline"}), 401),
            (source.sign("one", "ES256", claims | {"aud": "mail"}), 401),
        ):
            async with node.client(Authorization=f"Bearer {token}") as client:
                assert (await client.get("/api/sessions")).status_code == status
        async with node.client_of("grace", iss="throughline", aud="chat") as shared:
            # Signed with our secret, and without our key's id: whose should it be?
            assert (await shared.get("/api/sessions")).status_code == 401
        assert source.fetches == 1
