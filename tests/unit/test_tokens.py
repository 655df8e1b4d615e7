"""Tokens: what is good, and every way of passing one off that was tried on others."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.accounts.keys import OneKey, OwnKeys, key_id, read_public_key
from app.accounts.tokens import Expected, InvalidToken, TokenIssuer, TokenVerifier
from app.domain.caller import LONGEST_TOKEN_SECONDS, Caller
from tests.support.web import SECRET

KEY = SECRET.encode()
OLD = b"a former secret that is long enough for all of them, and for HS512"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
EC384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "ES384": EC384, "EdDSA": ED}
_MUCH_LATER = int(time.time()) + 86_400
"""After the last test of a run that collected this long ago."""


def pem(private: Any) -> str:
    public = private.public_key()
    return str(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def claims(**changes: Any) -> dict[str, Any]:
    said = {"sub": "ada", "exp": int(time.time()) + 300} | changes
    return {name: value for name, value in said.items() if value is not None}


def signed(key: Any = KEY, algorithm: str = "HS256", kid: Any = None, **changes: Any) -> str:
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def raw(header: Any, payload: Any, signature: bytes = b"") -> str:
    """Put a token together that no library would make."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    ]
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature)
    )


def own(**expected: str) -> TokenVerifier:
    return TokenVerifier(OwnKeys(KEY, [OLD]), Expected(**expected))


def with_issuer(algorithm: str = "RS256", **expected: str) -> TokenVerifier:
    return TokenVerifier(
        OwnKeys(KEY, [OLD]),
        Expected("throughline"),
        outside=OneKey(read_public_key(pem(PRIVATE[algorithm]))),
        outside_expected=Expected(**expected),
    )


async def refused(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(InvalidToken):
        await verifier.verify(token)


def issued(keys: OwnKeys, expected: Expected | None = None, **fields: Any) -> str:
    given: dict[str, Any] = {
        "user_id": "u-1",
        "name": "Ada",
        "roles": ["admin"],
        "sign_in_id": "s-1",
        "ttl_seconds": 60,
    }
    return TokenIssuer(keys, expected or Expected()).issue(**given | fields)


class TestOurOwn:
    async def test_what_was_issued_is_what_is_read(self) -> None:
        began = time.time()
        token = issued(OwnKeys(KEY), Expected("us", "chat"))
        caller = await own(issuer="us", audience="chat").verify(token)
        assert caller.issued_at is not None
        assert caller.expires_at is not None
        assert began <= caller.issued_at <= time.time()
        assert 58 < caller.expires_at - caller.issued_at <= 60
        assert caller.token_id
        assert caller._replace(expires_at=None, issued_at=None, token_id=None) == Caller(
            "u-1", "Ada", frozenset({"admin"}), sign_in_id="s-1"
        )

    async def test_no_two_tokens_have_one_id_and_none_lives_for_ever(self) -> None:
        first, second = [
            await own().verify(issued(OwnKeys(KEY), sign_in_id=None, ttl_seconds=10**12))
            for _ in range(2)
        ]
        assert first.token_id != second.token_id
        assert first.sign_in_id is None
        assert first.expires_at is not None
        assert first.expires_at <= time.time() + LONGEST_TOKEN_SECONDS

    async def test_a_former_secret_still_checks_and_signs_nothing(self) -> None:
        before = issued(OwnKeys(OLD))
        assert (await own().verify(before)).user_id == "u-1"
        await refused(TokenVerifier(OwnKeys(KEY), Expected()), before)
        header = jwt.get_unverified_header(issued(OwnKeys(KEY, [OLD])))
        assert header["kid"] == key_id(KEY)

    @pytest.mark.parametrize("key", [KEY, OLD])
    async def test_a_token_without_a_key_id_is_tried_with_every_secret(self, key: bytes) -> None:
        assert (await own().verify(signed(key))).user_id == "ada"

    async def test_the_key_id_of_another_secret_does_not_help(self) -> None:
        await refused(own(), signed(KEY, kid=key_id(OLD)))
        await refused(own(), signed(OLD, kid=key_id(KEY)))
        await refused(own(), signed(KEY, kid="of nobody"))

    def test_a_secret_is_not_shown(self) -> None:
        shown = repr(OwnKeys(KEY, [OLD]))
        assert SECRET not in shown
        assert "former" not in shown
        assert key_id(KEY) in shown

    async def test_an_expired_one_is_read_for_whom_may_renew_it_only(self) -> None:
        token = issued(OwnKeys(KEY), ttl_seconds=-60)
        await refused(own(), token)
        assert own().verify_own(token, may_have_expired=True).sign_in_id == "s-1"
        with pytest.raises(InvalidToken):
            own().verify_own(token)
        with pytest.raises(InvalidToken):
            own().verify_own(signed(b"x" * 64, exp=1), may_have_expired=True)


class TestRefused:
    @pytest.mark.parametrize(
        "changes",
        [
            {"exp": None},
            {"sub": None},
            {"exp": 1},
            {"exp": True},
            {"exp": "9999999999"},
            {"exp": []},
            {"exp": 1e400},
            {"exp": 10**400},
            {"exp": float("nan")},
            {"nbf": _MUCH_LATER},
            {"nbf": "soon"},
            {"iat": _MUCH_LATER},
            {"iat": True},
            {"iat": {}},
            {"sub": 7},
            {"sub": ""},
            {"sub": "x" * 256},
            {"sub": "a\x00b"},
            {"sub": "\ud800"},
            {"sub": ["ada"]},
            {"jti": 7},
            {"jti": ""},
            {"jti": "x" * 256},
            {"sid": {"a": 1}},
            {"sid": ""},
            {"roles": "admin"},
            {"roles": {"admin": True}},
            {"roles": ["admin", 1]},
        ],
        ids=repr,
    )
    async def test_claims_that_are_missing_or_make_no_sense(self, changes: dict[str, Any]) -> None:
        said = {"sub": "ada", "exp": int(time.time()) + 300} | changes
        payload = {name: value for name, value in said.items() if value is not None}
        token = jwt.PyJWS().encode(json.dumps(payload).encode(), KEY, algorithm="HS256")
        await refused(own(), token)

    async def test_another_issuer_or_audience(self) -> None:
        verifier = own(issuer="us", audience="chat")
        assert await verifier.verify(signed(iss="us", aud=["mail", "chat"]))
        for said in (
            {"iss": "them", "aud": "chat"},
            {"iss": "us", "aud": "mail"},
            {"iss": "us"},
            {"aud": "chat"},
            {"iss": ["us"], "aud": "chat"},
            {"iss": "us", "aud": {"chat": 1}},
            {"iss": "us", "aud": [["chat"]]},
        ):
            token = jwt.PyJWS().encode(json.dumps(claims(**said)).encode(), KEY, algorithm="HS256")
            await refused(verifier, token)

    @pytest.mark.parametrize(
        "token",
        [
            "",
            ".",
            "..",
            "a.b.c",
            "x" * 8193,
            "é.é.é",
            raw({"alg": "HS256"}, {"sub": "ada"}, b"x"),
            raw({"alg": "none"}, claims()),
            raw({"alg": "None", "typ": "JWT"}, claims()),
            raw({"alg": ""}, claims()),
            raw({"alg": None}, claims()),
            raw({"alg": ["HS256"]}, claims(), b"x"),
            raw({"alg": {}}, claims(), b"x"),
            raw({}, claims(), b"x"),
            raw([], claims(), b"x"),
            raw({"alg": "HS256", "kid": 7}, claims(), b"x"),
            raw({"alg": "HS256", "kid": {"a": []}}, claims(), b"x"),
            raw(b"[" * 6000, b""),
            raw(b'{"alg":"HS256","x":' + b"[" * 3000 + b"]" * 3000 + b"}", b""),
        ],
        ids=lambda token: token[:40],
    )
    async def test_what_is_no_token_at_all(self, token: str) -> None:
        await refused(own(), token)
        await refused(with_issuer(), token)

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    async def test_the_right_secret_with_another_algorithm(self, algorithm: str) -> None:
        await refused(own(), signed(KEY, algorithm))
        await refused(own(), signed(KEY, algorithm, kid=key_id(KEY)))

    async def test_a_changed_payload(self) -> None:
        header, _, signature = signed().split(".")
        payload = raw({}, claims(roles=["admin"])).split(".")[1]
        await refused(own(), f"{header}.{payload}.{signature}")

    async def test_an_extension_that_must_be_understood(self) -> None:
        headers = {"crit": ["exp"], "exp": 1}
        await refused(own(), jwt.encode(claims(), KEY, algorithm="HS256", headers=headers))

    async def test_a_payload_that_is_deep_and_signed(self) -> None:
        deep = b'{"sub":"ada","exp":9999999999,"x":' + b"[" * 2500 + b"]" * 2500 + b"}"
        await refused(own(), jwt.PyJWS().encode(deep, KEY, algorithm="HS256"))


class TestAnotherIssuer:
    @pytest.mark.parametrize("algorithm", sorted(PRIVATE))
    async def test_its_tokens_and_ours_both_count(self, algorithm: str) -> None:
        verifier = with_issuer(algorithm, issuer="them", audience="chat")
        token = signed(
            PRIVATE[algorithm], algorithm, kid="k", iss="them", aud="chat", roles=["admin"]
        )
        assert (await verifier.verify(token)).roles == {"admin"}
        ours = issued(OwnKeys(KEY), Expected("throughline"))
        assert (await verifier.verify(ours)).user_id == "u-1"
        for wrong in ({"iss": "us", "aud": "chat"}, {"iss": "them"}, {"aud": "chat"}):
            await refused(verifier, signed(PRIVATE[algorithm], algorithm, **wrong))

    @pytest.mark.parametrize("algorithm", sorted(PRIVATE))
    @pytest.mark.parametrize("other", [*sorted(PRIVATE), "HS256"])
    async def test_a_key_of_another_kind_is_refused(self, algorithm: str, other: str) -> None:
        if other != algorithm:
            await refused(with_issuer(algorithm), signed(PRIVATE.get(other, KEY), other))

    @pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
    async def test_its_key_with_another_algorithm_is_refused(self, algorithm: str) -> None:
        await refused(with_issuer("RS256"), signed(RSA, algorithm))

    @pytest.mark.parametrize("kid", [None, "k", key_id(KEY)])
    async def test_its_public_key_is_no_secret_to_sign_with(self, kid: str | None) -> None:
        """The classic: what everybody knows, used as the secret of HS256 (CVE-2015-9256)."""
        text = pem(RSA)
        header = {"alg": "HS256"} | ({} if kid is None else {"kid": kid})
        for secret in (text.encode(), text.strip().encode()):
            # PyJWT would not make it: it knows a public key when it sees one.
            unsigned = raw(header, claims()).rpartition(".")[0]
            signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
                unsigned.encode(), secret
            )
            forged = unsigned + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
            await refused(with_issuer(), forged)

    async def test_it_cannot_pass_its_tokens_off_as_ours(self) -> None:
        await refused(with_issuer(), signed(RSA, "RS256", kid=key_id(KEY), iss="throughline"))
        with pytest.raises(InvalidToken):
            with_issuer().verify_own(signed(RSA, "RS256"))

    async def test_a_token_of_ours_must_say_that_it_is(self) -> None:
        """Without our key id it is judged as the other issuer's, and fails."""
        await refused(with_issuer(), signed(KEY, iss="throughline"))


class TestPublicKeys:
    def test_a_key_in_one_line_is_read(self) -> None:
        assert read_public_key(pem(EC).replace("\n", "\\n")).algorithm == "ES256"

    @pytest.mark.parametrize(
        ("private", "algorithm"),
        [(RSA, "ES256"), (EC, "ES384"), (EC384, "ES256"), (ED, "RS256"), (RSA, "HS256")],
    )
    def test_an_algorithm_that_does_not_fit_is_refused(self, private: Any, algorithm: str) -> None:
        with pytest.raises(ValueError, match="must fit the key"):
            read_public_key(pem(private), algorithm)

    def test_a_weak_or_strange_key_is_refused(self) -> None:
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
        strange = ec.generate_private_key(ec.SECP256K1())
        for text in (pem(weak), pem(strange), "-----BEGIN PUBLIC KEY-----\nx\n", SECRET, ""):
            with pytest.raises(ValueError, match="must"):
                read_public_key(text)
