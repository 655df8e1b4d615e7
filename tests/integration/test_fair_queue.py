"""One worker with one place: one user's many questions, and another's single one."""

from __future__ import annotations

from pathlib import Path

from tests.support.web import answered, ask, serving


async def test_one_users_many_questions_do_not_starve_anothers_one(tmp_path: Path) -> None:
    """Of all that the first one asked before, one answer more is given before the other's."""
    async with (
        serving(tmp_path, worker_concurrency=1) as web,
        web.client_of("ada") as ada,
        web.client_of("eve") as eve,
    ):
        running = await ask(ada, "/stall 1 600")
        many = [await ask(ada, f"/echo {number}") for number in range(20)]
        single = await ask(eve, "/echo mine")
        await ada.post(f"/api/chat/{running['assistant_message']['message_id']}/cancel")

        mine = await answered(eve, single)
        assert (mine["status"], mine["content"]) == ("complete", "mine")
        others = [await answered(ada, asked) for asked in many]
        assert [other["content"] for other in others] == [str(number) for number in range(20)]
        before = [other for other in others if other["completed_at"] < mine["completed_at"]]
        assert [other["content"] for other in before] in ([], ["0"])
        # And each user's own order is kept.
        ends = [other["completed_at"] for other in others]
        assert ends == sorted(ends)
