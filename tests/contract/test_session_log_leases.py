"""Who may write a session's log, and for how long; and how an answer is stopped."""

from __future__ import annotations

import pytest

from app.domain.lease import Lease
from app.streams.session_log import AppendOutcome, Claimed, Held
from tests.support.log_steps import (
    ANSWER,
    LEASE_MS,
    NEXT_ANSWER,
    NODE,
    OTHER_NODE,
    OTHER_SESSION,
    SESSION,
    Steps,
    batch,
    contents,
    final,
    question,
)
from tests.support.session_logs import LogUnderTest, Stop


@pytest.fixture
def steps(under_test: LogUnderTest) -> Steps:
    return Steps(under_test)


async def test_a_lease_that_holds_is_not_given_to_another(steps: Steps) -> None:
    await steps.claim(node_id=NODE)
    refused = await steps.log.claim(SESSION, ANSWER, OTHER_NODE, LEASE_MS)
    assert isinstance(refused, Held)
    assert 0 < refused.retry_after_ms <= LEASE_MS


async def test_leases_of_sessions_do_not_meet(steps: Steps) -> None:
    await steps.claim(node_id=NODE)
    claimed = await steps.log.claim(OTHER_SESSION, ANSWER, OTHER_NODE, LEASE_MS)
    assert isinstance(claimed, Claimed)
    assert (claimed.lease.session_id, claimed.lease.node_id) == (OTHER_SESSION, OTHER_NODE)


async def test_a_lease_that_ended_is_given_under_a_larger_token(steps: Steps) -> None:
    first = await steps.claim(node_id=NODE)
    await steps.end_lease()
    second = await steps.claim(node_id=OTHER_NODE)
    assert second.lease.token > first.lease.token


async def test_a_lease_that_was_let_go_is_free_at_once(steps: Steps) -> None:
    lease = await steps.begin()
    await steps.write(lease, 0, "so ", "far")
    await steps.log.release(lease)
    claimed = await steps.claim(node_id=OTHER_NODE)
    assert claimed.active is not None
    assert claimed.active.text == "so far"


async def test_a_node_that_claims_again_outdates_its_own_lease(steps: Steps) -> None:
    """A worker that was restarted under its name, and its former self that still runs."""
    await steps.ask()
    former = await steps.begin()
    present = await steps.claim()
    assert present.lease.token > former.token
    assert await steps.write(former, 0, "x") is AppendOutcome.SUPERSEDED
    assert await steps.write(present.lease, 0, "x") is AppendOutcome.OK


async def test_tokens_grow_even_where_the_last_one_is_forgotten(steps: Steps) -> None:
    first = await steps.claim()
    await steps.under_test.lose()
    second = await steps.claim(node_id=OTHER_NODE)
    assert second.lease.token > first.lease.token


async def test_a_claim_tells_what_the_log_knows_of_the_answer(steps: Steps) -> None:
    await steps.ask()
    unbegun = await steps.claim()
    assert unbegun.active is not None
    assert unbegun.active._asdict() == {
        "message_id": ANSWER,
        "attempt": 0,
        "next_index": 0,
        "text": "",
        "reasoning": "",
    }
    assert await steps.start(unbegun.lease, attempt=3, kept="kept, ") is AppendOutcome.OK
    await steps.write(unbegun.lease, 0, "and ", "more", attempt=3)
    begun = await steps.claim()
    assert begun.active is not None
    assert begun.active._asdict() == {
        "message_id": ANSWER,
        "attempt": 3,
        "next_index": 2,
        "text": "kept, and more",
        "reasoning": "",
    }


async def test_a_claim_for_another_answer_is_told_nothing_of_this_one(steps: Steps) -> None:
    await steps.ask()
    lease = await steps.begin()
    await steps.write(lease, 0, "not yours")
    assert (await steps.claim(NEXT_ANSWER)).active is None


@pytest.mark.parametrize("action", ["start", "append", "finish", "renew"])
async def test_a_stale_holder_changes_nothing(steps: Steps, action: str) -> None:
    """Paused past its lease, it wakes up when another has gone on: not one character of it."""
    await steps.ask()
    stale = await steps.begin(node_id=NODE)
    await steps.write(stale, 0, "mine")
    await steps.end_lease()
    await steps.begin(attempt=2, node_id=OTHER_NODE, kept="mine")
    before = await steps.state()
    assert await _do(steps, action, stale) is AppendOutcome.SUPERSEDED
    assert await steps.state() == before


@pytest.mark.parametrize("action", ["start", "append", "finish", "renew"])
async def test_without_a_lease_nothing_is_written_either(steps: Steps, action: str) -> None:
    await steps.ask()
    ended = await steps.begin()
    await steps.end_lease()
    before = await steps.state()
    assert await _do(steps, action, ended) is AppendOutcome.LOST
    assert await steps.state() == before


async def _do(steps: Steps, action: str, lease: Lease) -> AppendOutcome:
    match action:
        case "start":
            return await steps.start(lease, attempt=9)
        case "append":
            return await steps.write(lease, 1, "x")
        case "finish":
            return await steps.finish(lease)
        case _:
            [outcome] = await steps.log.renew([(lease, ANSWER, 1)], LEASE_MS)
            return outcome


async def test_a_stale_holder_cannot_let_go_of_what_is_not_its(steps: Steps) -> None:
    stale = (await steps.claim(node_id=NODE)).lease
    await steps.end_lease()
    present = (await steps.claim(node_id=OTHER_NODE)).lease
    await steps.log.release(stale)
    assert await steps.log.renew([(present, ANSWER, 1)], LEASE_MS) == [AppendOutcome.OK]


async def test_a_renewed_lease_holds_for_longer(steps: Steps) -> None:
    lease = (await steps.claim()).lease
    assert await steps.log.renew([(lease, ANSWER, 1)], 10 * LEASE_MS) == [AppendOutcome.OK]
    refused = await steps.log.claim(SESSION, ANSWER, OTHER_NODE, LEASE_MS)
    assert isinstance(refused, Held)
    assert LEASE_MS < refused.retry_after_ms <= 10 * LEASE_MS


async def test_renewals_are_judged_one_by_one(steps: Steps) -> None:
    stale = (await steps.claim(node_id=NODE)).lease
    await steps.end_lease()
    present = (await steps.claim(node_id=OTHER_NODE)).lease
    other = await steps.log.claim(OTHER_SESSION, NEXT_ANSWER, NODE, LEASE_MS)
    assert isinstance(other, Claimed)
    nobodys = Lease("s-3", NODE, 1)
    await steps.log.cancel(OTHER_SESSION, NEXT_ANSWER, 1)
    outcomes = await steps.log.renew(
        [
            (stale, ANSWER, 1),
            (present, ANSWER, 1),
            (other.lease, NEXT_ANSWER, 1),
            (nobodys, ANSWER, 1),
        ],
        LEASE_MS,
    )
    assert outcomes == [
        AppendOutcome.SUPERSEDED,
        AppendOutcome.OK,
        AppendOutcome.CANCELLED,
        AppendOutcome.LOST,
    ]


async def test_a_holder_that_is_to_stop_keeps_its_lease_meanwhile(steps: Steps) -> None:
    lease = (await steps.claim()).lease
    await steps.log.cancel(SESSION, ANSWER, 1)
    assert await steps.log.renew([(lease, ANSWER, 1)], 10 * LEASE_MS) == [AppendOutcome.CANCELLED]
    refused = await steps.log.claim(SESSION, ANSWER, OTHER_NODE, LEASE_MS)
    assert isinstance(refused, Held)
    assert refused.retry_after_ms > LEASE_MS


async def test_nothing_to_renew_or_append_is_nothing_to_do(steps: Steps) -> None:
    assert await steps.log.renew([], LEASE_MS) == []
    assert await steps.log.append([]) == []


async def test_a_stop_is_told_to_the_owner(steps: Steps) -> None:
    await steps.ask()
    await steps.begin()
    assert await steps.log.cancel(SESSION, ANSWER, 1) == NODE
    assert await steps.under_test.stops() == [Stop(NODE, SESSION, ANSWER, 1)]


async def test_a_stop_without_an_owner_waits_for_one(steps: Steps) -> None:
    await steps.ask()
    assert await steps.log.cancel(SESSION, ANSWER, 1) is None
    assert await steps.under_test.stops() == []
    lease = await steps.begin()
    assert await steps.write(lease, 0, "x") is AppendOutcome.CANCELLED


async def test_an_owner_whose_lease_ended_is_not_told(steps: Steps) -> None:
    await steps.begin()
    await steps.end_lease()
    assert await steps.log.cancel(SESSION, ANSWER, 1) is None
    assert await steps.under_test.stops() == []


async def test_after_a_stop_nothing_is_appended(steps: Steps) -> None:
    await steps.ask()
    lease = await steps.begin()
    await steps.write(lease, 0, "so far")
    await steps.log.cancel(SESSION, ANSWER, 1)
    before = await steps.state()
    assert await steps.write(lease, 1, ", and on") is AppendOutcome.CANCELLED
    assert await steps.state() == before
    assert await steps.finish(lease) is AppendOutcome.OK
    assert contents(await steps.log.read(SESSION, before.snapshot.position, 10)) == [final()]


async def test_what_was_appended_before_the_stop_is_known_as_done(steps: Steps) -> None:
    """Its reply was lost and the stop came in between: the text is in, and the writer must know."""
    await steps.ask()
    lease = await steps.begin()
    assert await steps.write(lease, 0, "in") is AppendOutcome.OK
    await steps.log.cancel(SESSION, ANSWER, 1)
    before = await steps.state()
    assert await steps.write(lease, 0, "in") is AppendOutcome.OK
    assert await steps.state() == before


async def test_a_stop_of_one_answer_is_none_of_another(steps: Steps) -> None:
    await steps.ask(NEXT_ANSWER)
    await steps.log.cancel(SESSION, ANSWER, 1)
    lease = await steps.begin(NEXT_ANSWER)
    assert await steps.write(lease, 0, "x", message_id=NEXT_ANSWER) is AppendOutcome.OK


@pytest.mark.parametrize("moment", ["asked again", "claimed", "begun", "written"])
async def test_a_stop_that_comes_late_is_none_of_the_same_answer_asked_for_again(
    steps: Steps, moment: str
) -> None:
    """It was committed, then held up; the answer ended and was asked for again meanwhile."""
    await steps.ask()
    assert await steps.finish(await steps.begin()) is AppendOutcome.OK

    async def stop_late(now: str) -> None:
        if now == moment:
            await steps.log.cancel(SESSION, ANSWER, 1)

    await stop_late("asked again")  # before the log knows of it
    await steps.ask(attempt=2)
    lease = (await steps.claim()).lease
    await stop_late("claimed")
    assert await steps.start(lease, attempt=3) is AppendOutcome.OK
    await stop_late("begun")
    assert await steps.write(lease, 0, "one", attempt=3) is AppendOutcome.OK
    await stop_late("written")
    assert await steps.log.renew([(lease, ANSWER, 3)], LEASE_MS) == [AppendOutcome.OK]
    assert await steps.write(lease, 1, " two", attempt=3) is AppendOutcome.OK


async def test_a_stop_from_before_does_not_take_the_place_of_a_later_one(steps: Steps) -> None:
    await steps.ask(attempt=2)
    lease = await steps.begin(attempt=3)
    await steps.log.cancel(SESSION, ANSWER, 3)
    await steps.log.cancel(SESSION, ANSWER, 1)
    assert await steps.write(lease, 0, "x", attempt=3) is AppendOutcome.CANCELLED
    # Nor does the question that is told late, or again.
    await steps.ask(attempt=2)
    assert await steps.write(lease, 0, "x", attempt=3) is AppendOutcome.CANCELLED


@pytest.mark.parametrize("how", ["submitted again", "finished"])
async def test_a_stop_does_not_outlive_what_it_was_meant_for(steps: Steps, how: str) -> None:
    await steps.ask()
    lease = await steps.begin()
    await steps.log.cancel(SESSION, ANSWER, 1)
    if how == "finished":
        assert await steps.finish(lease) is AppendOutcome.OK
    else:
        await steps.ask(attempt=2)
        await steps.log.release(lease)
    lease = await steps.begin(attempt=3)
    assert await steps.write(lease, 0, "again", attempt=3) is AppendOutcome.OK


async def test_one_stale_batch_does_not_hold_up_the_others(steps: Steps) -> None:
    await steps.ask()
    stale = await steps.begin()
    await steps.end_lease()
    await steps.begin(attempt=2, node_id=OTHER_NODE)
    claimed = await steps.log.claim(OTHER_SESSION, ANSWER, NODE, LEASE_MS)
    assert isinstance(claimed, Claimed)
    other = claimed.lease
    started = await steps.log.start(
        other, ANSWER, 1, kept="", entries=[], entries_if_unknown=[question()]
    )
    assert started is AppendOutcome.OK
    outcomes = await steps.log.append([batch(stale, 0, "lost"), batch(other, 0, "kept")])
    assert outcomes == [AppendOutcome.SUPERSEDED, AppendOutcome.OK]
    active = (await steps.log.snapshot(OTHER_SESSION)).active
    assert active is not None
    assert active.text == "kept"


async def test_an_answer_that_is_gone_on_with_has_its_text_before_its_attempt(steps: Steps) -> None:
    """Whoever reads, stops or takes it between the question and the next attempt finds it."""
    await steps.answer(ANSWER, "so ", "far")
    await steps.log.submit(SESSION, ANSWER, 2, [], kept="so far", pristine=False)
    snapshot = await steps.log.snapshot(SESSION)
    claimed = await steps.claim()
    for active in (snapshot.active, claimed.active):
        assert active is not None
        assert (active.message_id, active.attempt, active.text) == (ANSWER, 2, "so far")
    await steps.start(claimed.lease, attempt=3, kept="so far")
    assert await steps.write(claimed.lease, 0, ", so good", attempt=3) is AppendOutcome.OK
    snapshot = await steps.log.snapshot(SESSION)
    assert snapshot.active is not None
    assert snapshot.active.text == "so far, so good"
