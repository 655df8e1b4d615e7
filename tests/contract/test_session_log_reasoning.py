"""What a model thinks, in the session log: beside the text, under the same fence."""

from __future__ import annotations

import pytest

from app.domain.events import Entry
from app.domain.messages import Status
from app.domain.position import BEFORE_ALL
from app.models.client import Reasoning
from app.streams.session_log import ActiveAnswer, AppendOutcome, Claimed
from tests.support.contract_client import ContractClient
from tests.support.scribe import LEASE_MS, Scribe, Writing, known, tell
from tests.support.session_logs import LogUnderTest

_SESSION = "s-1"


@pytest.fixture
def scribe(under_test: LogUnderTest) -> Scribe:
    return Scribe(under_test.log, _SESSION)


async def _held(scribe: Scribe) -> list[Entry]:
    return (await scribe.log.read(_SESSION, BEFORE_ALL, 1000)).entries


async def _active(scribe: Scribe) -> ActiveAnswer:
    return known((await scribe.log.snapshot(_SESSION)).active)


async def _thinking(scribe: Scribe) -> Writing:
    writing = await scribe.begin(await scribe.ask())
    assert writing is not None
    assert await writing.write(Reasoning("Let me "), Reasoning("see. ")) is AppendOutcome.OK
    return writing


async def test_it_is_apart_from_the_text_and_in_order_with_it(scribe: Scribe) -> None:
    writing = await _thinking(scribe)
    await writing.write(Reasoning("Yes."), "I", Reasoning(" Or «no»\n"), " think")
    assert await _active(scribe) == ActiveAnswer(
        writing.answer, 1, 6, "I think", "Let me see. Yes. Or «no»\n"
    )
    held = await _held(scribe)
    assert [entry.type for entry in held[2:]] == [
        "reasoning", "reasoning", "reasoning", "chunk", "reasoning", "chunk",
    ]  # fmt: skip
    client = tell(ContractClient(), held)
    assert client.text(writing.answer) == "I think"
    assert client.reasoning(writing.answer) == "Let me see. Yes. Or «no»\n"

    await writing.finish()
    tell(client, (await _held(scribe))[len(held) :])
    assert client.messages[writing.answer]["reasoning"] == "Let me see. Yes. Or «no»\n"
    assert (await scribe.log.snapshot(_SESSION)).active is None


async def test_a_flush_that_is_sent_again_adds_nothing(scribe: Scribe) -> None:
    writing = await _thinking(scribe)
    before = await _held(scribe)
    assert await writing.write_again() is AppendOutcome.OK
    assert await _held(scribe) == before
    assert (await _active(scribe)).reasoning == "Let me see. "


async def test_thoughts_of_a_stale_holder_are_refused(
    scribe: Scribe, under_test: LogUnderTest
) -> None:
    stale = await _thinking(scribe)
    await under_test.end_lease(_SESSION)
    assert await scribe.begin(stale.answer, "worker-2", keep=False) is not None
    before = (await _held(scribe), await _active(scribe))
    assert await stale.write(Reasoning("I see it!")) is AppendOutcome.SUPERSEDED
    assert (await _held(scribe), await _active(scribe)) == before


async def test_a_stop_holds_while_it_thinks(scribe: Scribe) -> None:
    writing = await _thinking(scribe)
    await scribe.log.cancel(_SESSION, writing.answer, writing.attempt)
    assert await writing.write(Reasoning("more")) is AppendOutcome.CANCELLED
    assert (await _active(scribe)).reasoning == "Let me see. "
    assert await writing.finish(Status.CANCELLED) is AppendOutcome.OK
    client = tell(ContractClient(), await _held(scribe))
    assert client.reasoning(writing.answer) == "Let me see. "


async def test_whoever_claims_is_told_of_it(scribe: Scribe, under_test: LogUnderTest) -> None:
    writing = await _thinking(scribe)
    await writing.write("Well")
    await under_test.end_lease(_SESSION)
    claimed = await scribe.log.claim(_SESSION, writing.answer, "worker-2", LEASE_MS)
    assert isinstance(claimed, Claimed)
    assert claimed.active == ActiveAnswer(writing.answer, 1, 3, "Well", "Let me see. ")


@pytest.mark.parametrize(
    ("keep", "reasoning", "text"), [(True, "Let me see. ", "Well,"), (False, "", "")]
)
async def test_the_next_attempt_keeps_it_with_its_text_or_drops_both(
    scribe: Scribe, under_test: LogUnderTest, keep: bool, reasoning: str, text: str
) -> None:
    first = await _thinking(scribe)
    await first.write("Well,")
    await under_test.end_lease(_SESSION)
    second = await scribe.begin(first.answer, "worker-2", keep=keep)
    assert second is not None
    assert await _active(scribe) == ActiveAnswer(first.answer, 2, 0, text, reasoning)
    await second.write(Reasoning("Hm."), " yes")
    client = tell(ContractClient(), await _held(scribe))
    assert client.starts[-1]["reasoning"] == (reasoning or None)
    assert client.reasoning(first.answer) == f"{reasoning}Hm."
    assert client.text(first.answer) == f"{text} yes"


async def test_an_answer_that_is_gone_on_with_has_it_from_the_start(scribe: Scribe) -> None:
    await scribe.log.submit(
        _SESSION, "a-9", 3, [], kept="Well,", kept_reasoning="Hm.", pristine=False
    )
    assert await _active(scribe) == ActiveAnswer("a-9", 3, 0, "Well,", "Hm.")


async def test_nothing_of_it_comes_into_the_next_turn(scribe: Scribe) -> None:
    first = await _thinking(scribe)
    await first.write("Yes")
    await first.finish()
    second = await scribe.begin(await scribe.ask("And now?"))
    assert second is not None
    assert (await _active(scribe)).reasoning == ""
    await second.write("No")
    assert await _active(scribe) == ActiveAnswer(second.answer, 1, 1, "No", "")


async def test_a_session_that_is_deleted_leaves_none(scribe: Scribe) -> None:
    writing = await _thinking(scribe)
    await scribe.delete()
    claimed = await scribe.log.claim(_SESSION, writing.answer, "worker-2", LEASE_MS)
    assert isinstance(claimed, Claimed)
    assert claimed.active is None
    await scribe.log.submit(_SESSION, "a-9", 0, [], pristine=False)
    assert (await _active(scribe)).reasoning == ""
