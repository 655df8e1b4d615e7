"""Searching titles and messages: whatever the case and the script, without wildcards, bounded."""

from __future__ import annotations

import pytest

from app.db import search
from app.db.engine import Database
from app.db.search import Hit
from tests.support.conversations import Talker, after


@pytest.fixture
async def ada(database: Database) -> Talker:
    return await Talker(database).arrive()


async def _found(talker: Talker, wanted: str, limit: int = 50) -> list[Hit]:
    return await search.search(talker.database, user_id=talker.user_id, wanted=wanted, limit=limit)


async def test_titles_and_messages_are_found_newest_first(ada: Talker) -> None:
    old = await ada.exchange("Where is the lighthouse?", "At the end of the pier.")
    await ada.create("s-2", title="Piers and harbours", now=after(10))

    hits = await _found(ada, "pier")

    assert hits == [
        Hit(
            "s-2", "Piers and harbours", None, after(10), "", begins_within=False, ends_within=False
        ),
        Hit(
            "s-1",
            "A title",
            old.assistant_message.message_id,
            after(0),
            "At the end of the pier.",
            begins_within=False,
            ends_within=False,
        ),
    ]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("Lighthouse", "LIGHTHOUSE"),
        ("ÜBERMORGEN IN ZÜRICH", "übermorgen in zürich"),
        ("ПРИВЕТ, МИР", "привет"),
        ("Ελληνικά", "ΕΛΛΗΝΙΚΆ"),
        ("İzmir'de", "zmir"),
        ("日本語のテキスト", "本語"),
        ("a 😀 face", "😀"),
    ],
)
async def test_case_does_not_count_in_any_script(ada: Talker, said: str, wanted: str) -> None:
    await ada.ask(said)

    (hit,) = await _found(ada, wanted)

    assert hit.excerpt == said


@pytest.mark.parametrize("wanted", ["%", "_", "100%", "a_b", "\\", "'", '"', "--"])
async def test_a_sign_is_a_sign_and_no_wildcard(ada: Talker, wanted: str) -> None:
    await ada.ask("nothing of the kind: 1000 axb")
    assert await _found(ada, wanted) == []

    await ada.ask(f"here it is: {wanted}!", session_id="s-2")
    assert [hit.session_id for hit in await _found(ada, wanted)] == ["s-2"]


async def test_nobody_finds_what_is_not_theirs_or_deleted(ada: Talker, database: Database) -> None:
    eve = await Talker(database, user_id="eve").arrive()
    await ada.ask("a secret")
    await ada.create("s-2", title="secret too")

    assert await _found(eve, "secret") == []
    assert len(await _found(ada, "secret")) == 2
    await ada.delete()
    assert [hit.session_id for hit in await _found(ada, "secret")] == ["s-2"]


async def test_there_is_an_end_to_what_is_given(ada: Talker) -> None:
    for number in range(7):
        await ada.exchange(f"question {number} about tides", "Tides?", now=after(number))

    hits = await _found(ada, "tides", limit=5)

    assert len(hits) == 5
    assert {hit.said_at for hit in hits} == {after(6), after(5), after(4)}


async def test_of_a_long_message_the_part_around_it_is_given(ada: Talker) -> None:
    await ada.ask("a" * 3000 + " needle " + "b" * 1500)

    (hit,) = await _found(ada, "Needle")

    assert " needle " in hit.excerpt
    assert len(hit.excerpt) <= 200
    assert hit.excerpt.startswith("a" * 59)
    assert (hit.begins_within, hit.ends_within) == (True, True)
