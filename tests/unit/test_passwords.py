"""Passwords: argon2id, never more than two at a time, and nobody's costs as much as somebody's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher, extract_parameters

from app.accounts.passwords import HASHES_AT_ONCE, Passwords, check_new_password
from app.domain.errors import Overloaded, ValidationFailed
from tests.support.waiting import eventually

PASSWORD = "correct horse battery staple"


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(memory_kib=64, passes=1)
    yield made
    made.close()


async def test_what_is_stored_is_argon2id_with_the_recommended_cost() -> None:
    passwords = Passwords()
    stored = await passwords.hash(PASSWORD)
    passwords.close()
    assert stored.startswith("$argon2id$")
    parameters = extract_parameters(stored)
    assert (parameters.memory_cost, parameters.time_cost) == (19_456, 2)


async def test_only_the_password_matches_and_each_hash_has_its_own_salt(
    passwords: Passwords,
) -> None:
    stored = await passwords.hash(PASSWORD)
    assert stored != await passwords.hash(PASSWORD)
    assert (await passwords.check(PASSWORD, stored)).matches
    assert not (await passwords.check(PASSWORD + " ", stored)).matches
    assert not (await passwords.check("", stored)).matches
    assert not (await passwords.check(PASSWORD, "what is this?")).matches


async def test_a_password_is_the_same_however_a_keyboard_composed_it(passwords: Passwords) -> None:
    stored = await passwords.hash("Zürich ist schön")
    assert (await passwords.check("Zu\u0308rich ist scho\u0308n", stored)).matches


async def test_a_hash_of_lesser_cost_is_replaced_when_it_matches(passwords: Passwords) -> None:
    stored = await passwords.hash(PASSWORD)
    stronger = Passwords(memory_kib=128, passes=1)
    checked = await stronger.check(PASSWORD, stored)
    assert checked.matches
    assert checked.rehashed is not None
    assert await stronger.check(PASSWORD, checked.rehashed) == (True, None)
    assert (await stronger.check("wrong", stored)).rehashed is None
    stronger.close()


async def test_a_user_who_is_not_there_costs_a_hash_too(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time would tell who has an account."""
    compared: list[str] = []
    verify = PasswordHasher.verify

    def counting(hasher: PasswordHasher, stored: str, password: str) -> bool:
        compared.append(stored)
        return verify(hasher, stored, password)

    monkeypatch.setattr(PasswordHasher, "verify", counting)
    assert not (await passwords.check("nobody has this password", None)).matches
    (stored,) = compared
    assert extract_parameters(stored) == extract_parameters(await passwords.hash(PASSWORD))


async def test_a_thousand_wrong_passwords_are_two_at_a_time_and_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passwords = Passwords(memory_kib=64, passes=1, waiting_max=1000)
    stored = await passwords.hash(PASSWORD)
    running, most = 0, 0
    lock = threading.Lock()
    loop_thread = threading.get_ident()
    verify = PasswordHasher.verify

    def watched(hasher: PasswordHasher, stored: str, password: str) -> bool:
        nonlocal running, most
        assert threading.get_ident() != loop_thread
        with lock:
            running += 1
            most = max(most, running)
        try:
            return verify(hasher, stored, password)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(PasswordHasher, "verify", watched)
    checked = await asyncio.gather(*(passwords.check(f"wrong {n}", stored) for n in range(1000)))
    assert not any(one.matches for one in checked)
    assert most <= HASHES_AT_ONCE
    passwords.close()


async def test_who_comes_while_too_many_wait_is_told_so_and_a_place_comes_free_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passwords = Passwords(memory_kib=64, passes=1, waiting_max=3)
    stored = await passwords.hash(PASSWORD)
    gate = threading.Event()
    verify = PasswordHasher.verify

    def held(hasher: PasswordHasher, stored: str, password: str) -> bool:
        assert gate.wait(30)
        return verify(hasher, stored, password)

    monkeypatch.setattr(PasswordHasher, "verify", held)
    try:
        tasks = [
            asyncio.create_task(passwords.check(PASSWORD, stored))
            for _ in range(HASHES_AT_ONCE + 3)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as raised:
            await passwords.check(PASSWORD, stored)
        assert raised.value.retry_after_seconds
        # Whoever leaves frees no place while the hash runs: only those that wait can be dropped.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        gate.set()

    def has_place() -> bool:
        has = passwords._places.acquire(blocking=False)
        if has:
            passwords._places.release()
        return has

    await eventually(has_place, "a place is free")
    assert (await passwords.check(PASSWORD, stored)).matches
    passwords.close()


@pytest.mark.parametrize(
    "password",
    ["short", "x" * 257, "password123", "PassWord123", "aaaaaaaaaa", "ada lovelace"],
)
def test_a_password_that_nobody_should_have_is_refused(password: str) -> None:
    with pytest.raises(ValidationFailed):
        check_new_password(password, name="Ada Lovelace")


@pytest.mark.parametrize(
    "password", ["8 letter", "x1" * 128, "пароль с пробелом", "🧵🧵🧵🧵🧵🧵🧵🪡"]
)
def test_any_other_password_is_taken(password: str) -> None:
    check_new_password(password, name="ada")


def test_closing_waits_for_nobody() -> None:
    passwords = Passwords(memory_kib=64, passes=1)
    began = time.monotonic()
    passwords.close()
    assert time.monotonic() - began < 30
