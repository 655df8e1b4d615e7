"""What is deleted is gone: with its words in the outbox, and with whoever said them."""

from __future__ import annotations

import itertools
import json
import time
from datetime import timedelta

import pytest
import structlog
from redis.asyncio import Redis
from sqlalchemy import select, update

from app.accounts.erasure import AccountErasure
from app.accounts.passwords import Passwords
from app.chat.deletion import Deletion
from app.db import erasure, sessions, users
from app.db.engine import Database
from app.db.tables import chat_sessions, messages, outbox
from app.db.tables import users as user_table
from app.domain.errors import Forbidden, NotFound, SignInFailed, Unavailable
from app.domain.events import NewEntry
from app.domain.redaction import redacted
from app.streams import keys
from app.streams.election import Election
from app.streams.memory_log import MemorySessionLog
from tests.support.conversations import NOON, Talker, after, new_id, no_events, told
from workers.generation.housekeeping import Housekeeper

_DAY = timedelta(days=1)


class _Log(MemorySessionLog):
    """A session log that can be away, and says what was deleted from it."""

    def __init__(self) -> None:
        epochs = itertools.count(1000)
        super().__init__(max_entries=1000, clock=time.monotonic, epoch_clock=lambda: next(epochs))
        self.is_away = False
        self.deleted: list[str] = []

    async def delete(self, session_id: str, entry: NewEntry) -> None:
        if self.is_away:
            raise Unavailable
        self.deleted.append(session_id)
        await super().delete(session_id, entry)


class _House:
    """What deletes and what keeps house, at a time that the test sets."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self.database = database
        self.now = NOON
        self.log = _Log()
        self.redis = redis
        self.revoked: list[str] = []
        self.talker = Talker(database)
        self.deletion = Deletion(
            database=database,
            log=self.log,
            events=self.talker.events,
            undo_seconds=30,
            clock=lambda: self.now,
            logger=structlog.get_logger("test"),
        )

    async def revoke_sign_in(self, sign_in_id: str, *, seconds: int) -> None:
        raise AssertionError(sign_in_id, seconds)

    async def revoke_user(self, user_id: str, *, seconds: int) -> None:
        assert seconds > 0
        self.revoked.append(user_id)

    def housekeeper(self, retention: timedelta | None = None) -> Housekeeper:
        """Give another worker's, which knows nothing of what the one before was about."""
        return Housekeeper(
            database=self.database,
            deletion=self.deletion,
            election=Election(self.redis, key=keys.HOUSEKEEPER, node_id=new_id(), ttl_ms=6000),
            period_seconds=0.0,
            retention=retention,
            clock=lambda: self.now,
        )

    def accounts(self, passwords: Passwords) -> AccountErasure:
        return AccountErasure(
            database=self.database,
            passwords=passwords,
            revoker=self,
            clock=lambda: self.now,
            logger=structlog.get_logger("test"),
        )

    async def due(self) -> list[str]:
        return await sessions.purge_due(self.database, now=self.now, limit=1000)

    async def kept(self) -> list[str]:
        """Give the sessions that are not deleted."""
        async with self.database.read() as connection:
            found = await connection.execute(
                select(chat_sessions.c.id).where(chat_sessions.c.deleted_at.is_(None))
            )
            return sorted(found.scalars())


@pytest.fixture
async def house(database: Database, redis: Redis) -> _House:
    house = _House(database, redis)
    await house.talker.arrive()
    return house


async def _words(database: Database) -> str:
    """Give all text that people and models may have written, wherever it is."""
    async with database.read() as connection:
        said = await connection.execute(select(messages.c.content))
        titles = await connection.execute(select(chat_sessions.c.title))
        records = await connection.execute(select(outbox.c.payload))
        return " ".join(
            [*said.scalars(), *titles.scalars(), *(one.decode() for one in records.scalars())]
        )


class TestSession:
    async def test_its_words_are_in_no_record_any_more(self, house: _House) -> None:
        """Neither in one that was published nor in one that is to be; another's stay."""
        ada = house.talker
        asked = await ada.exchange("xyzzy?", "plugh")
        await ada.rename("xyzzy told")
        async with house.database.write() as connection:
            await connection.execute(
                update(outbox).where(outbox.c.sequence == 1).values(published_at=NOON)
            )
        other = Talker(house.database, session_id="s-2")
        await other.ask("not this one")
        assert "xyzzy" in await _words(house.database)

        await ada.delete()

        assert "xyzzy" not in await _words(house.database)
        by_type = {(one["eventType"], one["sessionId"]): one for one in await told(house.database)}
        question = by_type["CHAT_MESSAGE", "s-1"]
        assert question["content"] is None
        assert question["metadata"]["redacted"] is True
        assert question["messageId"] == asked.user_message.message_id
        assert by_type["SESSION_RENAMED", "s-1"]["metadata"]["title"] is None
        assert by_type["CHAT_MESSAGE", "s-2"]["content"] == "not this one"
        assert "redacted" not in by_type["CHAT_MESSAGE", "s-2"]["metadata"]

    async def test_one_that_was_put_away_keeps_them_until_it_is_purged(self, house: _House) -> None:
        ada = house.talker
        await ada.exchange("xyzzy?", "plugh")
        await sessions.put_away_session(
            house.database,
            user_id="ada",
            session_id="s-1",
            text_so_far=None,
            purge_at=after(30),
            now=NOON,
            events=no_events,
        )
        assert await house.housekeeper().step() == 0
        assert "xyzzy" in await _words(house.database)

        house.now = after(30)
        assert await house.housekeeper().step() == 1

        assert "xyzzy" not in await _words(house.database)
        assert house.log.deleted == ["s-1"]
        assert await house.due() == []

    async def test_what_redis_could_not_be_told_is_done_later(self, house: _House) -> None:
        await house.talker.exchange("xyzzy?", "plugh")
        house.log.is_away = True
        await house.deletion._delete("ada", "s-1")
        with pytest.raises(Unavailable):
            await house.housekeeper().step()
        assert await house.due() == ["s-1"]

        house.log.is_away = False
        assert await house.housekeeper().step() == 1
        assert house.log.deleted == ["s-1"]
        assert await house.housekeeper().step() == 0

    async def test_nobody_restores_it_whatever_their_clock_says(self, house: _House) -> None:
        await house.talker.exchange("xyzzy?", "plugh")
        await house.deletion._delete("ada", "s-1")
        with pytest.raises(NotFound):
            await sessions.restore_session(
                house.database,
                user_id="ada",
                session_id="s-1",
                now=NOON - 365 * _DAY,
                events=no_events,
            )


class TestRetention:
    async def test_what_was_left_alone_for_so_long_goes(self, house: _House) -> None:
        await house.talker.create("s-old", title="xyzzy")
        await house.talker.create("s-new", now=NOON + 10 * _DAY)
        house.now = NOON + 30 * _DAY
        keeper = house.housekeeper(30 * _DAY)
        await keeper.step()
        assert await house.kept() == ["s-new", "s-old"], "to the second"

        house.now += timedelta(seconds=1)
        while await keeper.step():
            pass

        assert await house.kept() == ["s-new"]
        assert house.log.deleted[0] == "s-old"
        assert "xyzzy" not in await _words(house.database)
        last = (await told(house.database))[-1]
        assert (last["eventType"], last["userId"]) == ("SESSION_DELETED", "ada")
        assert last["metadata"]["reason"] == "retention"

    async def test_without_the_setting_everything_stays(self, house: _House) -> None:
        await house.talker.create("s-old")
        house.now = NOON + 10_000 * _DAY
        assert await house.housekeeper().step() == 0
        assert await house.kept() == ["s-old"]

    async def test_what_somebody_goes_on_with_stays(self, house: _House) -> None:
        """The worker had looked before that."""
        await house.talker.create("s-1")
        before = NOON + 30 * _DAY
        assert await sessions.idle_sessions(house.database, before=before, limit=9) == [
            ("ada", "s-1")
        ]
        await house.talker.ask("still here", now=before)
        with pytest.raises(NotFound):
            await house.deletion._delete("ada", "s-1", idle_before=before)
        assert await house.kept() == ["s-1"]


class TestAccount:
    async def test_one_that_is_large_is_erased_in_steps_by_whoever_goes_on(
        self, house: _House
    ) -> None:
        for number in range(51):
            await house.talker.create(f"s-{number}", title="xyzzy", now=after(number))
        await house.talker.ask("stop me", session_id="s-50", now=after(60))
        bob = await Talker(house.database, "bob", "s-bob").arrive()
        await bob.exchange("mine", "yours")
        assert await erasure.begin_erasure(house.database, user_id="ada", now=NOON)

        await house.housekeeper().step()
        assert await house.kept() == ["s-0", "s-bob"]
        assert house.log.deleted[0] == "s-50", "what is being answered comes first"
        other = house.housekeeper()
        while await other.step():
            pass
        assert await house.kept() == ["s-bob"]
        words = await _words(house.database)
        assert "xyzzy" not in words
        assert "mine" in words
        assert await house.due() == []
        gone = [one for one in await told(house.database) if one["eventType"] == "SESSION_DELETED"]
        assert {one["metadata"]["reason"] for one in gone} == {"account"}
        assert len(gone) == 51

    async def test_what_crossed_it_is_found_by_the_last_look(self, house: _House) -> None:
        await erasure.begin_erasure(house.database, user_id="ada", now=NOON)
        assert await house.housekeeper().step() == 0
        await house.talker.create("s-late", title="xyzzy")

        house.now = after(180)
        keeper = house.housekeeper()
        while await keeper.step():
            pass

        assert await house.kept() == []
        assert await erasure.being_erased(house.database, limit=9) == []
        assert "xyzzy" not in await _words(house.database)

    async def test_who_put_something_away_cannot_have_it_back(self, house: _House) -> None:
        await house.talker.exchange("xyzzy?", "plugh")
        await sessions.put_away_session(
            house.database,
            user_id="ada",
            session_id="s-1",
            text_so_far=None,
            purge_at=after(86_400),
            now=NOON,
            events=no_events,
        )
        await erasure.begin_erasure(house.database, user_id="ada", now=NOON)
        assert await house.housekeeper().step() == 1
        assert "xyzzy" not in await _words(house.database)

    async def test_nothing_names_its_owner_and_nobody_begins_anew(self, house: _House) -> None:
        passwords = Passwords(memory_kib=64, passes=1)
        hashed = await passwords.hash("correct horse")
        async with house.database.write() as connection:
            await connection.execute(
                update(user_table)
                .where(user_table.c.id == "ada")
                .values(password_hash=hashed, is_admin=True)
            )
        accounts = house.accounts(passwords)
        assert await accounts.needs_password(user_id="ada")
        with pytest.raises(SignInFailed):
            await accounts.begin(user_id="ada", password="wrong")
        await accounts.begin(user_id="ada", password="correct horse")
        passwords.close()

        assert house.revoked == ["ada"]
        async with house.database.read() as connection:
            row = (
                await connection.execute(select(user_table).where(user_table.c.id == "ada"))
            ).one()
        assert (row.name, row.password_hash, row.is_admin) == (None, None, False)
        assert row.disabled_at == NOON
        with pytest.raises(Forbidden):
            await users.ensure_user(house.database, user_id="ada", name="ada", now=NOON)
        # The name is anybody's again.
        await users.ensure_user(house.database, user_id="another", name="ada", now=NOON)
        with pytest.raises(NotFound):
            await accounts.begin_named(name="eve")
        assert await accounts.begin_named(name="ada") == "another"

    async def test_the_user_of_a_development_machine_stays(self, house: _House) -> None:
        await users.ensure_user(house.database, user_id="dev", name="dev", now=NOON)
        passwords = Passwords(memory_kib=64, passes=1)
        with pytest.raises(Forbidden):
            await house.accounts(passwords).begin(user_id="dev", password="")
        passwords.close()


def test_a_record_without_words_stays_as_it_is() -> None:
    record = {"eventType": "USER_SIGNED_IN", "content": None, "metadata": {"via": "link"}}
    assert redacted(json.dumps(record).encode()) is None
    first = redacted(json.dumps(record | {"content": "word", "errorDetail": "of it"}).encode())
    assert first is not None
    assert json.loads(first)["metadata"] == {"via": "link", "redacted": True}
    assert json.loads(first)["errorDetail"] is None
    assert redacted(first) is None
