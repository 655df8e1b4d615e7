"""Which answers are offered to go on, and which model a form names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.domain.messages import AnswerError, Message, Role, Status
from app.models.build import build_models
from app.models.servers import ModelServer
from app.web.model_choice import ModelChoice

_URL = "http://127.0.0.1:9/v1"
_CUT = AnswerError("length_stopped", "The model's limit on the length ended the answer")


def _answer(**fields: Any) -> Message:
    values: dict[str, Any] = {
        "message_id": "m",
        "session_id": "s",
        "role": Role.ASSISTANT,
        "content": "As far",
        "status": Status.COMPLETE,
        "is_complete": True,
        "attempt": 1,
        "model": "demo",
        "created_at": "2026-01-31T09:05:00.123Z",
    }
    return Message(**values | fields)


@pytest_asyncio.fixture
async def several() -> AsyncIterator[ModelChoice]:
    models = build_models(
        servers=[
            ModelServer(id="able", base_url=_URL, name="Able", continues=True),
            ModelServer(id="unable", base_url=_URL, continues=False),
            ModelServer(id="unknown", base_url=_URL),
        ]
    )
    yield ModelChoice(models)
    await models.close()


@pytest.mark.parametrize(
    ("fields", "is_offered"),
    [
        ({"error": _CUT}, True),
        ({"error": _CUT, "model": "able"}, True),
        ({"error": _CUT, "model": "unable"}, False),
        ({"error": _CUT, "model": "unknown"}, False),
        ({"error": _CUT, "model": "taken away since"}, False),
        ({"error": _CUT, "model": None}, False),
        ({}, False),
        ({"status": Status.CANCELLED}, True),
        ({"status": Status.CANCELLED, "content": ""}, False),
        ({"status": Status.FAILED, "error": AnswerError("model_cut_off", "")}, True),
        # It would fail again without another word.
        ({"status": Status.FAILED, "error": AnswerError("answer_too_long", "")}, False),
    ],
)
async def test_an_answer_that_has_an_end_or_a_model_that_cannot_is_not_gone_on_with(
    several: ModelChoice, fields: dict[str, Any], *, is_offered: bool
) -> None:
    assert several.can_go_on(_answer(**fields)) is is_offered


async def test_the_form_names_what_was_wanted_or_answered_last_if_it_is_still_there(
    several: ModelChoice,
) -> None:
    question = _answer(role=Role.USER, model=None)
    answers = [_answer(model="demo"), question, _answer(model="unable"), question]
    assert several.chosen(()) == "able"
    assert several.chosen([question]) == "able"
    assert several.chosen(answers) == "unable"
    assert several.chosen(answers, "demo") == "demo"
    assert several.chosen(answers, "taken away since") == "able"
    assert several.chosen([*answers, _answer(model="taken away since")]) == "able"


async def test_who_answered_is_said_where_it_could_have_been_another(several: ModelChoice) -> None:
    assert several.caption(_answer(model="able")) == "Able"
    assert several.caption(_answer(model="taken away since")) == "taken away since"
    assert several.caption(_answer(model=None)) is None
    models = build_models()
    alone = ModelChoice(models)
    assert not alone.is_offered
    assert alone.caption(_answer()) is None
    await models.close()
