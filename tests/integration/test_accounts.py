"""Accounts and sign-ins, on either database: made, used, ended, and never by two at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
import uuid_utils
from sqlalchemy import select

from app.accounts.accounts import AccountRules, Accounts, SignUp
from app.accounts.passwords import Passwords
from app.db.engine import Database
from app.db.tables import invitations, outbox, sign_in_links, sign_ins, users
from app.domain.errors import (
    NameTaken,
    NotFound,
    SignInFailed,
    SignUpRefused,
    Unavailable,
    ValidationFailed,
)
from app.events.envelope import EventBuilder

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"


class Tokens:
    """Writes down what it is asked to sign, and what is to be revoked."""

    def __init__(self) -> None:
        self.issued: list[dict[str, Any]] = []
        self.revoked: list[tuple[str, str]] = []
        self.is_away = False

    def issue(self, **claims: Any) -> str:
        self.issued.append(claims)
        return f"token-{len(self.issued)}"

    async def revoke_sign_in(self, sign_in_id: str, *, seconds: int) -> None:
        if self.is_away:
            raise Unavailable
        self.revoked.append(("sign-in", sign_in_id))

    async def revoke_user(self, user_id: str, *, seconds: int) -> None:
        if self.is_away:
            raise Unavailable
        self.revoked.append(("user", user_id))


class Desk:
    """The accounts of one node, with a clock that the test sets."""

    def __init__(
        self, database: Database, passwords: Passwords, *, sign_up: SignUp = "open"
    ) -> None:
        self.now = NOON
        self.tokens = Tokens()
        self.database = database
        self.accounts = Accounts(
            database=database,
            passwords=passwords,
            issuer=self.tokens,
            revoker=self.tokens,
            events=EventBuilder("web-1", _new_id),
            rules=AccountRules(
                sign_up=sign_up,
                sign_in_lifetime=timedelta(days=30),
                cookie_seconds=900,
                token_seconds=3600,
                allows_links=True,
            ),
            new_id=_new_id,
            clock=lambda: self.now,
            logger=structlog.get_logger("test"),
        )

    async def events(self) -> Sequence[dict[str, Any]]:
        async with self.database.read() as connection:
            found = await connection.execute(select(outbox.c.payload).order_by(outbox.c.sequence))
            return [json.loads(payload) for payload in found.scalars()]


def _new_id() -> str:
    return str(uuid_utils.uuid7())


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(memory_kib=64, passes=1)
    yield made
    made.close()


@pytest.fixture
async def desk(database: Database, passwords: Passwords) -> AsyncIterator[Desk]:
    # Nothing that is logged here is for the test's output.
    with structlog.testing.capture_logs():
        yield Desk(database, passwords)


async def test_who_signed_up_can_sign_in_with_the_password_and_with_no_other(desk: Desk) -> None:
    made = await desk.accounts.sign_up(name="  ada ", password=PASSWORD)
    assert made.name == "ada"
    again = await desk.accounts.sign_in(name="ada", password=PASSWORD)
    assert again.user_id == made.user_id
    assert again.sign_in_id != made.sign_in_id
    for name, password in (("ada", "wrong"), ("eve", PASSWORD), ("", ""), ("ada\x00", "x")):
        with pytest.raises(SignInFailed) as raised:
            await desk.accounts.sign_in(name=name, password=password)
        assert raised.value.detail == SignInFailed.title, "what was wrong must not be told"


async def test_each_sign_in_is_an_event_in_its_own_transaction(desk: Desk) -> None:
    made = await desk.accounts.sign_up(name="ada", password=PASSWORD)
    (event,) = await desk.events()
    assert event["eventType"] == "USER_SIGNED_IN"
    assert (event["userId"], event["sessionId"]) == (made.user_id, None)
    assert event["metadata"]["signInId"] == made.sign_in_id
    assert event["metadata"]["via"] == "sign-up"
    assert event["content"] is None
    with pytest.raises(SignInFailed):
        await desk.accounts.sign_in(name="ada", password="wrong")
    assert len(await desk.events()) == 1


async def test_no_two_people_have_a_name_or_one_that_looks_the_same(desk: Desk) -> None:
    outcomes = await asyncio.gather(
        *(desk.accounts.sign_up(name="ada", password=PASSWORD) for _ in range(4)),
        return_exceptions=True,
    )
    assert sum(not isinstance(one, BaseException) for one in outcomes) == 1
    assert sum(isinstance(one, NameTaken) for one in outcomes) == 3
    for name in ("ada", "Ada", "ａｄａ"):
        with pytest.raises(NameTaken):
            await desk.accounts.sign_up(name=name, password=PASSWORD)


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb", "a\u202eb"])
async def test_a_name_is_something_that_can_be_read(desk: Desk, name: str) -> None:
    with pytest.raises(ValidationFailed):
        await desk.accounts.sign_up(name=name, password=PASSWORD)


async def test_nobody_signs_up_where_that_is_closed(
    database: Database, passwords: Passwords
) -> None:
    desk = Desk(database, passwords, sign_up="closed")
    code = await desk.accounts.invite()
    with pytest.raises(SignUpRefused):
        await desk.accounts.sign_up(name="ada", password=PASSWORD, invitation=code)


async def test_an_invitation_is_for_one_person_and_for_a_week(
    database: Database, passwords: Passwords
) -> None:
    desk = Desk(database, passwords, sign_up="invited")
    for wrong in (None, "", "made-up"):
        with pytest.raises(SignUpRefused):
            await desk.accounts.sign_up(name="ada", password=PASSWORD, invitation=wrong)
    code = await desk.accounts.invite()
    with pytest.raises(ValidationFailed):
        await desk.accounts.sign_up(name="ada", password="short", invitation=code)
    outcomes = await asyncio.gather(
        *(
            desk.accounts.sign_up(name=f"user-{n}", password=PASSWORD, invitation=code)
            for n in range(4)
        ),
        return_exceptions=True,
    )
    refused = [one for one in outcomes if isinstance(one, BaseException)]
    assert [type(one) for one in refused] == [SignUpRefused] * 3
    assert len(await desk.accounts.everybody()) == 1, "a refusal must leave no account behind"
    late = await desk.accounts.invite()
    desk.now += timedelta(days=8)
    with pytest.raises(SignUpRefused):
        await desk.accounts.sign_up(name="ada", password=PASSWORD, invitation=late)


async def test_no_code_and_no_password_is_stored_as_it_is(desk: Desk) -> None:
    codes = [await desk.accounts.invite(), await desk.accounts.administrator_link()]
    await desk.accounts.sign_up(name="ada", password=PASSWORD)
    async with desk.database.read() as connection:
        rows = [
            str(tuple(row))
            for table in (users, invitations, sign_in_links, sign_ins)
            for row in await connection.execute(select(table))
        ]
    for secret in (*codes, PASSWORD):
        assert not any(secret in row for row in rows)


class TestRenewal:
    async def test_a_sign_in_lives_for_as_long_as_it_is_used(self, desk: Desk) -> None:
        begun = await desk.accounts.sign_up(name="ada", password=PASSWORD)
        for _ in range(3):
            desk.now += timedelta(days=29)
            renewed = await desk.accounts.renew(begun.sign_in_id)
            assert renewed is not None
            assert (renewed.sign_in_id, renewed.name) == (begun.sign_in_id, "ada")
        desk.now += timedelta(days=30)
        assert await desk.accounts.renew(begun.sign_in_id) is None

    async def test_what_is_renewed_says_what_is_true_now(self, desk: Desk) -> None:
        begun = await desk.accounts.sign_up(name="ada", password=PASSWORD)
        assert list(begun.roles) == []
        async with desk.database.write() as connection:
            await connection.execute(users.update().values(is_admin=True))
        renewed = await desk.accounts.renew(begun.sign_in_id)
        assert renewed is not None
        assert list(renewed.roles) == ["admin"]
        assert desk.tokens.issued[-1]["roles"] == ["admin"]

    async def test_an_unknown_one_is_not_renewed(self, desk: Desk) -> None:
        assert await desk.accounts.renew("none") is None


class TestEnding:
    async def test_signing_out_ends_one_sign_in_and_only_one_s_own(self, desk: Desk) -> None:
        ada = await desk.accounts.sign_up(name="ada", password=PASSWORD)
        other = await desk.accounts.sign_in(name="ada", password=PASSWORD)
        eve = await desk.accounts.sign_up(name="eve", password=PASSWORD)
        await desk.accounts.sign_out(user_id=eve.user_id, sign_in_id=ada.sign_in_id)
        assert await desk.accounts.renew(ada.sign_in_id) is not None
        await desk.accounts.sign_out(user_id=ada.user_id, sign_in_id=ada.sign_in_id)
        assert await desk.accounts.renew(ada.sign_in_id) is None
        assert await desk.accounts.renew(other.sign_in_id) is not None

    async def test_signing_out_everywhere_ends_all_of_them_and_the_tokens(self, desk: Desk) -> None:
        first = await desk.accounts.sign_up(name="ada", password=PASSWORD)
        second = await desk.accounts.sign_in(name="ada", password=PASSWORD)
        eve = await desk.accounts.sign_up(name="eve", password=PASSWORD)
        await desk.accounts.sign_out_everywhere(user_id=first.user_id)
        for ended in (first, second):
            assert await desk.accounts.renew(ended.sign_in_id) is None
        assert await desk.accounts.renew(eve.sign_in_id) is not None
        assert desk.tokens.revoked == [("user", first.user_id)]

    async def test_another_password_ends_every_other_sign_in(self, desk: Desk) -> None:
        own = await desk.accounts.sign_up(name="ada", password=PASSWORD)
        other = await desk.accounts.sign_in(name="ada", password=PASSWORD)
        change = {"user_id": own.user_id, "sign_in_id": own.sign_in_id}
        with pytest.raises(SignInFailed):
            await desk.accounts.change_password(**change, old="wrong", new="another horse")
        with pytest.raises(ValidationFailed):
            await desk.accounts.change_password(**change, old=PASSWORD, new="short")
        assert await desk.accounts.renew(other.sign_in_id) is not None

        kept = await desk.accounts.change_password(**change, old=PASSWORD, new="another horse")

        assert kept is not None
        assert kept.sign_in_id == own.sign_in_id
        assert await desk.accounts.renew(other.sign_in_id) is None
        assert ("user", own.user_id) in desk.tokens.revoked
        with pytest.raises(SignInFailed):
            await desk.accounts.sign_in(name="ada", password=PASSWORD)
        await desk.accounts.sign_in(name="ada", password="another horse")

    async def test_a_disabled_user_is_out_at_once_and_stays_out(self, desk: Desk) -> None:
        ada = await desk.accounts.sign_up(name="ada", password=PASSWORD)
        await desk.accounts.disable(name="ada")
        assert await desk.accounts.renew(ada.sign_in_id) is None
        assert desk.tokens.revoked == [("user", ada.user_id)]
        for attempt in (desk.accounts.sign_in, desk.accounts.token):
            with pytest.raises(SignInFailed):
                await attempt(name="ada", password=PASSWORD)
        with pytest.raises(NotFound):
            await desk.accounts.disable(name="nobody")

    async def test_what_ends_while_redis_is_away_has_ended_all_the_same(self, desk: Desk) -> None:
        ada = await desk.accounts.sign_up(name="ada", password=PASSWORD)
        desk.tokens.is_away = True
        await desk.accounts.sign_out(user_id=ada.user_id, sign_in_id=ada.sign_in_id)
        assert await desk.accounts.renew(ada.sign_in_id) is None
        await desk.accounts.sign_out_everywhere(user_id=ada.user_id)

    async def test_who_is_disabled_while_the_password_is_checked_does_not_get_in(
        self, desk: Desk
    ) -> None:
        await desk.accounts.sign_up(name="ada", password=PASSWORD)
        account = await desk.accounts._proven("ada", PASSWORD)
        await desk.accounts.disable(name="ada")
        with pytest.raises(SignInFailed):
            await desk.accounts._begin(account, via="password")

    async def test_a_password_that_was_changed_while_it_was_checked_does_not_get_in(
        self, desk: Desk
    ) -> None:
        await desk.accounts.sign_up(name="ada", password=PASSWORD)
        account = await desk.accounts._proven("ada", PASSWORD)
        await desk.accounts.set_password(name="ada", password="another horse")
        with pytest.raises(SignInFailed):
            await desk.accounts._begin(account, via="password")


class TestLinks:
    async def test_a_link_signs_in_as_administrator_once(self, desk: Desk) -> None:
        code = await desk.accounts.administrator_link()
        outcomes = await asyncio.gather(
            *(desk.accounts.sign_in_by_link(code) for _ in range(4)), return_exceptions=True
        )
        (begun,) = [one for one in outcomes if not isinstance(one, BaseException)]
        assert (begun.user_id, list(begun.roles)) == ("dev", ["admin"])
        assert [type(one) for one in outcomes].count(SignInFailed) == 3

    async def test_it_is_good_for_an_hour_and_needs_its_code(self, desk: Desk) -> None:
        code = await desk.accounts.administrator_link()
        with pytest.raises(SignInFailed):
            await desk.accounts.sign_in_by_link("made-up")
        desk.now += timedelta(hours=1)
        with pytest.raises(SignInFailed):
            await desk.accounts.sign_in_by_link(code)

    async def test_it_does_not_sign_in_somebody_else_who_has_that_name(self, desk: Desk) -> None:
        other = await desk.accounts.sign_up(name="dev", password=PASSWORD)
        begun = await desk.accounts.sign_in_by_link(await desk.accounts.administrator_link())
        assert begun.user_id == "dev" != other.user_id
        renewed = await desk.accounts.renew(other.sign_in_id)
        assert renewed is not None
        assert list(renewed.roles) == []

    async def test_there_is_none_in_production(self, desk: Desk) -> None:
        code = await desk.accounts.administrator_link()
        desk.accounts.rules = desk.accounts.rules._replace(allows_links=False)  # type: ignore[misc]
        for attempt in (desk.accounts.administrator_link(), desk.accounts.sign_in_by_link(code)):
            with pytest.raises(SignInFailed):
                await attempt


async def test_an_operator_makes_and_lists_accounts(desk: Desk) -> None:
    await desk.accounts.create(name="root", password=PASSWORD, is_admin=True)
    await desk.accounts.create(name="robot", password=None, is_admin=False)
    with pytest.raises(NameTaken):
        await desk.accounts.create(name="root", password=PASSWORD, is_admin=False)
    listed = [(one.name, one.is_admin) for one in await desk.accounts.everybody()]
    assert listed == [("robot", False), ("root", True)]
    begun = await desk.accounts.sign_in(name="root", password=PASSWORD)
    assert list(begun.roles) == ["admin"]
    with pytest.raises(SignInFailed):
        await desk.accounts.sign_in(name="robot", password="")
