"""Tokens: JSON Web Tokens (RFC 7519) that say who somebody is, made here or by another issuer.

Which of two verifiers a token meets is decided by its ``kid`` and by nothing else: the id of one of
our own keys leads to HS256 with that key, everything else to the other issuer where there is one.
Each key is used with one algorithm, which the configuration or the key decides. What ``alg`` a
token names can therefore only make it fail: a public key is never used as a secret, ``none`` never
accepted (RFC 8725, sections 2.1 and 3.1).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeGuard

import jwt

from app.accounts.keys import OwnKeys, PublicKey
from app.domain.caller import LONGEST_TOKEN_SECONDS, Caller
from app.domain.errors import Unauthenticated

OWN_ALGORITHM: Final = "HS256"
OWN_ISSUER: Final = "throughline"
"""``iss`` of our own tokens where ``JWT_ISSUER`` names another issuer."""

_LEEWAY_SECONDS: Final = 5
_NAME_MAX_CHARACTERS: Final = 255
_TOKEN_MAX_CHARACTERS: Final = 8192


class InvalidToken(Unauthenticated):
    """A credential was presented and is wrong, expired or revoked."""

    title = "The credential is not valid"


class Expected(NamedTuple):
    """What tokens of one issuer must say beside ``sub`` and ``exp``; None is not checked."""

    issuer: str | None = None
    audience: str | None = None


class FindsKeys(Protocol):
    """The keys of another issuer."""

    async def find(self, key_id: str | None) -> PublicKey | None:
        """Give the key of that id, None where there is none.

        Raises Unavailable where the issuer has to be asked and cannot be.
        """
        ...

    async def close(self) -> None:
        """Let go of whatever leads to the issuer."""
        ...


class TokenIssuer:
    """Makes our own tokens: HS256 under the current secret, which the header's ``kid`` names."""

    def __init__(
        self, keys: OwnKeys, expected: Expected, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Take the keys, and the issuer and audience that the tokens are to name."""
        self._keys = keys
        self._expected = expected
        self._clock = clock

    def issue(
        self,
        *,
        user_id: str,
        name: str,
        roles: Iterable[str],
        sign_in_id: str | None,
        ttl_seconds: int,
    ) -> str:
        """Make a token that is valid for ``ttl_seconds``, LONGEST_TOKEN_SECONDS at most."""
        now = self._clock()
        claims: dict[str, object] = {
            "sub": user_id,
            "name": name,
            "roles": sorted(roles),
            "jti": uuid.uuid4().hex,
            # With its fraction: a token that is made right after all others of the user were
            # revoked is newer than that, also within the same second.
            "iat": now,
            "exp": int(now) + min(ttl_seconds, LONGEST_TOKEN_SECONDS),
        }
        if sign_in_id is not None:
            claims["sid"] = sign_in_id
        if self._expected.issuer is not None:
            claims["iss"] = self._expected.issuer
        if self._expected.audience is not None:
            claims["aud"] = self._expected.audience
        key = self._keys.current
        return jwt.encode(
            claims, key, algorithm=OWN_ALGORITHM, headers={"kid": self._keys.current_id}
        )


class TokenVerifier:
    """Says whom a token names."""

    def __init__(
        self,
        keys: OwnKeys,
        own: Expected,
        *,
        outside: FindsKeys | None = None,
        outside_expected: Expected | None = None,
    ) -> None:
        """Take our own keys, and those of another issuer where its tokens count as well."""
        self._keys = keys
        self._own = own
        self._outside = outside
        self._outside_expected = outside_expected or Expected()
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})

    async def verify(self, token: str) -> Caller:
        """Give whom a token names.

        Raises InvalidToken, and Unavailable where the other issuer's keys cannot be had.
        """
        key_id = _key_id_of(token)
        if self._outside is None or self._keys.has(key_id):
            return self._own_caller(token, key_id)
        key = await self._outside.find(key_id)
        if key is None:
            raise InvalidToken("the token is not valid")
        return self._caller(token, key.key, key.algorithm, self._outside_expected)

    async def close(self) -> None:
        """Let go of whatever leads to the other issuer."""
        if self._outside is not None:
            await self._outside.close()

    def verify_own(self, token: str, *, may_have_expired: bool = False) -> Caller:
        """Give whom a token of our own names; raise InvalidToken for any other.

        ``may_have_expired`` is for who asks next whether the token may be renewed.
        """
        return self._own_caller(token, _key_id_of(token), may_have_expired=may_have_expired)

    def _own_caller(
        self, token: str, key_id: str | None, *, may_have_expired: bool = False
    ) -> Caller:
        keys: Sequence[bytes] = self._keys.of(key_id)
        if not keys:
            raise InvalidToken("the token is not valid")
        return self._caller(
            token,
            keys[0] if len(keys) == 1 else self._signing(token, keys),
            OWN_ALGORITHM,
            self._own,
            may_have_expired=may_have_expired,
        )

    def _signing(self, token: str, keys: Sequence[bytes]) -> bytes:
        """Find the key of a token without a «kid»: somebody else's who shares one of them."""
        for key in keys:
            with contextlib.suppress(*_MISTAKES):
                self._jwt.decode_complete(token, key, [OWN_ALGORITHM], options=_SIGNATURE_ONLY)
                return key
        raise InvalidToken("the token is not valid")

    def _caller(
        self,
        token: str,
        key: Any,
        algorithm: str,
        expected: Expected,
        *,
        may_have_expired: bool = False,
    ) -> Caller:
        try:
            claims = self._jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=expected.issuer,
                audience=expected.audience,
                leeway=_LEEWAY_SECONDS,
                options={
                    "require": ["exp", "sub"],
                    "verify_exp": not may_have_expired,
                    # PyJWT refuses any «aud» where none is expected.
                    "verify_aud": expected.audience is not None,
                },
            )
            expires_at = _number(claims["exp"])
            issued_at = _number(claims["iat"]) if "iat" in claims else None
        except jwt.ExpiredSignatureError as error:
            raise InvalidToken("the token has expired") from error
        except _MISTAKES as error:
            raise InvalidToken("the token is not valid") from error
        return _caller_of(claims, expires_at, issued_at)


# PyJWT lets some signed nonsense through, and what cannot be decoded at all.
_MISTAKES: Final = (jwt.PyJWTError, TypeError, ValueError, OverflowError, RecursionError)

_SIGNATURE_ONLY: Final[Any] = {
    "verify_aud": False,
    "verify_exp": False,
    "verify_iat": False,
    "verify_iss": False,
    "verify_jti": False,
    "verify_nbf": False,
    "verify_sub": False,
}


def _key_id_of(token: str) -> str | None:
    """Read the ``kid`` of a token that nobody has checked yet; raise InvalidToken."""
    if len(token) > _TOKEN_MAX_CHARACTERS:
        raise InvalidToken("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
    except _MISTAKES as error:
        raise InvalidToken("the token is not valid") from error
    if "crit" in header:
        # It asks for an extension to be understood, and there is none that is (RFC 7515, 4.1.11).
        raise InvalidToken("the token is not valid")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise InvalidToken("the token is not valid")
    return key_id


def _caller_of(claims: Mapping[str, Any], expires_at: float, issued_at: float | None) -> Caller:
    subject, roles = claims["sub"], claims.get("roles", [])
    if not _is_name(subject):
        raise InvalidToken("the token's sub must be 1 to 255 storable characters")
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise InvalidToken("the token's roles must be a list of names")
    ids = claims.get("sid"), claims.get("jti")
    if not all(one is None or _is_name(one) for one in ids):
        raise InvalidToken("the token's sid and jti must be 1 to 255 storable characters")
    name = claims.get("name")
    return Caller(
        user_id=subject,
        name=name if _is_name(name) else subject,
        roles=frozenset(roles),
        expires_at=expires_at,
        sign_in_id=ids[0],
        token_id=ids[1],
        issued_at=issued_at,
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a time must be a number")
    return float(value)


def _is_name(value: object) -> TypeGuard[str]:
    return (
        isinstance(value, str)
        and 0 < len(value) <= _NAME_MAX_CHARACTERS
        and "\x00" not in value
        and not any("\ud800" <= character <= "\udfff" for character in value)
    )
