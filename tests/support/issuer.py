"""Another issuer of tokens: a real HTTP server on this machine that publishes a set of keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Issuer:
    """What it answers with, and how often it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.fetches = 0
        self.keys: list[dict[str, Any]] = []
        self.body: bytes | None = None
        """In place of the keys."""
        self.head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
        self.open = asyncio.Event()
        """Unset: a request waits for its answer."""
        self.open.set()
        self._private: dict[str, PrivateKey] = {}

    def rotate(self, kid: str, private: PrivateKey, **described: Any) -> None:
        """Sign with this key from now on, and publish it alone."""
        self._private[kid] = private
        self.keys = [public_jwk(private) | {"kid": kid, "use": "sig"} | described]

    def sign(self, kid: str, algorithm: str, claims: dict[str, Any]) -> str:
        """Make a token."""
        return jwt.encode(claims, self._private[kid], algorithm=algorithm, headers={"kid": kid})

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.fetches += 1
            await self.open.wait()
            body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
            writer.write(b"%s\r\n%s" % (self.head, body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def public_jwk(private: PrivateKey) -> dict[str, Any]:
    """Describe the public part of a key as RFC 7517 has it."""
    public = private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return dict(RSAAlgorithm.to_jwk(public, as_dict=True))
    if isinstance(public, ec.EllipticCurvePublicKey):
        return dict(ECAlgorithm.to_jwk(public, as_dict=True))
    return dict(OKPAlgorithm.to_jwk(public, as_dict=True))


@asynccontextmanager
async def issuer() -> AsyncIterator[Issuer]:
    """Run one until the end of the block."""
    running = Issuer()
    server = await asyncio.start_server(running.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    running.url = f"http://127.0.0.1:{port}/jwks.json"
    try:
        yield running
    finally:
        running.open.set()
        server.close()
        await server.wait_closed()
