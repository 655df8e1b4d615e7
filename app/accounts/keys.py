"""The keys that tokens are checked with: our own secrets, and the public key of another issuer."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

_ID_CHARACTERS: Final = 16
_RSA_MIN_BITS: Final = 2048
_RSA_MAX_BITS: Final = 8192
_RSA_EXPONENT_MAX: Final = 2**32

AnyPublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

ALGORITHMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "RS256": "RSA",
        "RS384": "RSA",
        "RS512": "RSA",
        "PS256": "RSA",
        "PS384": "RSA",
        "PS512": "RSA",
        "ES256": "secp256r1",
        "ES384": "secp384r1",
        "ES512": "secp521r1",
        "EdDSA": "Ed25519",
    }
)
"""Every algorithm that another issuer may use, with the kind of key that it needs.

The first of each kind is the one that a key is used with unless something says otherwise.
"""


class OwnKeys:
    """The secrets that our own tokens are signed with; the first one signs, all of them check."""

    def __init__(self, current: bytes, previous: Sequence[bytes] = ()) -> None:
        """Take the secret that signs, and those that did before."""
        self.current = current
        self.current_id = key_id(current)
        self._by_id = {key_id(key): key for key in (*reversed(previous), current)}
        self._all = tuple(dict.fromkeys((current, *previous)))

    def __repr__(self) -> str:
        """Name the keys by their ids: they themselves are nobody's business."""
        return f"OwnKeys({', '.join(key_id(key) for key in self._all)})"

    def has(self, wanted: str | None) -> bool:
        """Say whether one of the secrets has that id."""
        return wanted in self._by_id

    def of(self, wanted: str | None) -> Sequence[bytes]:
        """Give the secret of that id, none where it is not ours; all of them for None."""
        if wanted is None:
            return self._all
        found = self._by_id.get(wanted)
        return () if found is None else (found,)


class PublicKey(NamedTuple):
    """A key of another issuer, with the one algorithm that it is used with."""

    key: AnyPublicKey
    algorithm: str


class OneKey:
    """An issuer with a single public key, which the operator was given."""

    def __init__(self, key: PublicKey) -> None:
        """Take the key."""
        self._key = key

    async def find(self, key_id: str | None) -> PublicKey | None:  # noqa: ARG002
        """Give the key, whatever the token calls it."""
        return self._key

    async def close(self) -> None:
        """Have nothing to let go of."""


def key_id(secret: bytes) -> str:
    """Give the ``kid`` of a secret: it follows from it, and tells no more of it than a signature.

    Processes that share a secret agree on it without being told.
    """
    return hmac.new(secret, b"throughline kid", hashlib.sha256).hexdigest()[:_ID_CHARACTERS]


def read_public_key(pem: str, algorithm: str | None = None) -> PublicKey:
    """Read a public key in PEM; raise ValueError where it is none that can be used.

    ``algorithm`` is one of ALGORITHMS; None takes the usual one for such a key.
    """
    try:
        # Who sets a variable in one line writes line ends as «\\n».
        key = load_pem_public_key(pem.replace("\\n", "\n").encode())
    except Exception as error:
        raise ValueError("must be a public key in PEM form") from error
    return public_key(key, algorithm)


def public_key(key: object, algorithm: str | None = None) -> PublicKey:
    """Pair a key with its algorithm; raise ValueError where they do not fit."""
    if isinstance(key, RSAPublicKey):
        kind = "RSA"
        if not _RSA_MIN_BITS <= key.key_size <= _RSA_MAX_BITS:
            raise ValueError(f"must have {_RSA_MIN_BITS} to {_RSA_MAX_BITS} bits")
        if key.public_numbers().e > _RSA_EXPONENT_MAX:
            raise ValueError("must have a usual exponent: checking would take long otherwise")
    elif isinstance(key, EllipticCurvePublicKey):
        kind = key.curve.name
    elif isinstance(key, Ed25519PublicKey):
        kind = "Ed25519"
    else:
        raise ValueError("must be an RSA, elliptic curve or Ed25519 key")  # noqa: TRY004
    fitting = [name for name, needed in ALGORITHMS.items() if needed == kind]
    if algorithm is None and fitting:
        algorithm = fitting[0]
    if algorithm not in fitting:
        raise ValueError(f"must fit the key, which is of the kind {kind}")
    return PublicKey(key, algorithm)
