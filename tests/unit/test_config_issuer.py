"""Settings of keys and issuers: what cannot work is said at the start, without telling a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.accounts.tokens import OWN_ISSUER, InvalidToken
from app.composition import issuer_of, verifier_of
from app.config import Settings, SettingsError, WebSettings

SECRET = "a-secret-of-at-least-thirty-two-bytes"
OLD = "another-secret-of-thirty-two-bytes"
EC = ec.generate_private_key(ec.SECP256R1())
PEM = EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def settings(**values: Any) -> WebSettings:
    return WebSettings(environment="development", jwt_secret=SECRET, **values)


def mistakes(**values: Any) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        settings(**values)
    return list(raised.value.mistakes)


@pytest.mark.parametrize("written", ["x" * 40, "{}", "[1]", f'["{OLD}"', f'[["{OLD}"]]'])
def test_former_secrets_are_a_list(written: str) -> None:
    said = mistakes(jwt_previous_secrets=written)
    assert said == ["JWT_PREVIOUS_SECRETS: must be a JSON list of secrets"]


def test_former_secrets_are_no_shorter_than_others() -> None:
    said = mistakes(jwt_previous_secrets=json.dumps([OLD, "too short"]))
    assert said == ["JWT_PREVIOUS_SECRETS: must hold secrets of 32 bytes or more"]


def test_former_secrets_are_not_shown() -> None:
    made = settings(jwt_previous_secrets=json.dumps([OLD]))
    assert made.previous_signing_keys == [OLD.encode()]
    assert OLD not in repr(made)
    assert settings().previous_signing_keys == []


@pytest.mark.parametrize(
    "address",
    [
        "http://issuer.example/keys",
        "http://127.0.0.1.example/keys",
        "http://localhost@issuer.example/",
        "http://169.254.169.254/",
        "ftp://127.0.0.1/keys",
        "file:///etc/passwd",
        "keys",
    ],
)
def test_keys_come_over_a_way_that_nobody_can_change(address: str) -> None:
    (said,) = mistakes(jwt_jwks_url=address)
    assert said.startswith("JWT_JWKS_URL: must be an address that begins with ")


@pytest.mark.parametrize(
    "address",
    [
        "https://issuer.example/keys",
        "http://127.0.0.1:8080/keys",
        "http://[::1]/",
        "http://localhost",
    ],
)
def test_an_address_of_keys_is_taken(address: str) -> None:
    assert settings(jwt_jwks_url=address).jwt_jwks_url == address


def test_what_does_not_go_together_is_named() -> None:
    private = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    rsa_pem = rsa_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert mistakes(jwt_public_key=PEM, jwt_jwks_url="https://issuer.example/keys") == [
        "JWT_JWKS_URL: must not be set when JWT_PUBLIC_KEY is"
    ]
    assert mistakes(jwt_algorithm="RS256") == [
        (
            "JWT_ALGORITHM: must not be set without JWT_PUBLIC_KEY or JWT_JWKS_URL: tokens of "
            "JWT_SECRET are of HS256"
        )
    ]
    for text in ("no key", private):
        assert mistakes(jwt_public_key=text) == ["JWT_PUBLIC_KEY: must be a public key in PEM form"]
    assert mistakes(jwt_public_key=PEM, jwt_algorithm="RS256") == [
        "JWT_ALGORITHM: must fit the key, which is of the kind secp256r1"
    ]
    assert settings(jwt_public_key=rsa_pem, jwt_algorithm="PS512").jwt_algorithm == "PS512"
    for algorithm in ("HS256", "none", "rs256"):
        (said,) = mistakes(jwt_public_key=PEM, jwt_algorithm=algorithm)
        assert said.startswith("JWT_ALGORITHM: must be ")


async def test_our_own_tokens_are_known_beside_another_issuers() -> None:
    made = settings(jwt_public_key=PEM, jwt_issuer="them", jwt_audience="chat")
    fields: dict[str, Any] = {
        "user_id": "ada", "name": "ada", "roles": [], "sign_in_id": None, "ttl_seconds": 60
    }  # fmt: skip
    token = issuer_of(made).issue(**fields)
    assert OWN_ISSUER == "throughline"
    assert (await verifier_of(made).verify(token)).user_id == "ada"
    with pytest.raises(InvalidToken):
        # It says «us» where it must say «throughline».
        await verifier_of(made).verify(issuer_of(settings(jwt_issuer="us")).issue(**fields))


async def test_a_former_secret_is_still_known_after_a_restart() -> None:
    fields: dict[str, Any] = {
        "user_id": "ada", "name": "ada", "roles": [], "sign_in_id": None, "ttl_seconds": 60
    }  # fmt: skip
    token = issuer_of(settings()).issue(**fields)
    rotated = WebSettings(
        environment="development", jwt_secret=OLD, jwt_previous_secrets=json.dumps([SECRET])
    )
    assert (await verifier_of(rotated).verify(token)).user_id == "ada"
    forgotten = WebSettings(environment="development", jwt_secret=OLD)
    with pytest.raises(InvalidToken):
        await verifier_of(forgotten).verify(token)
