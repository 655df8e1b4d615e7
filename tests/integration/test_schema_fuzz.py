"""Every call of ``/schema`` is made with what its schema allows and with what it does not.

schemathesis makes the calls and holds the answers to the document: statuses, media types, headers,
bodies; that wrong input is refused and right input taken; that a credential is asked for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from tests.support.web import WebNode, ask, serving, token

_EXAMPLES: Final = 16
_CALL_SECONDS: Final = 40
_PUBLIC_ORIGIN: Final = "https://chat.example.org"
_JUDGED_BY_VALUE: Final = {"invalid_cursor", "unknown_model"}
"""Codes of what a schema cannot tell from the right: another server's cursor, a model's name."""
_TWO_KEYS: Final = "must not differ"
"""Words of the one rule between two fields: a key in the header and another one in the body."""


async def test_signed_in_every_call_answers_as_the_document_says(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, environment="production", public_origin=_PUBLIC_ORIGIN) as node,
        node.client_of("mallory") as http,
    ):
        asked = await ask(http, "/echo something to be found")
        statuses = await asyncio.to_thread(_call_all, node, signed_in=asked["session_id"])
        assert node.complaints() == []
    assert {HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.CREATED} <= statuses.keys()
    assert {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND} <= statuses.keys()


async def test_without_a_credential_every_call_is_refused_or_public(tmp_path: Path) -> None:
    async with serving(
        tmp_path, worker=False, environment="production", public_origin=_PUBLIC_ORIGIN
    ) as node:
        before = node.rows()
        statuses = await asyncio.to_thread(_call_all, node, signed_in=None)
        assert node.rows() == before
        assert node.complaints() == []
    assert statuses[HTTPStatus.UNAUTHORIZED] > _EXAMPLES


def _call_all(node: WebNode, *, signed_in: str | None) -> Counter[int]:
    """Call each operation with right and with wrong data; give the statuses that came.

    ``signed_in`` is a session of the caller's, or None for a caller without a credential.
    """
    schema = schemathesis.openapi.from_url(f"{node.url}/schema/openapi.json")
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        _call_many(operation, GenerationMode.POSITIVE, signed_in, statuses)
        # A call that takes nothing cannot be made with what is wrong.
        if [*operation.iter_parameters(), *operation.body]:
            _call_many(operation, GenerationMode.NEGATIVE, signed_in, statuses)
    return statuses


def _call_many(
    operation: APIOperation[Any, Any, Any, Any],
    mode: GenerationMode,
    signed_in: str | None,
    statuses: Counter[int],
) -> None:
    headers = {"Authorization": f"Bearer {token('mallory')}"} if signed_in else {}
    if operation.path.endswith("/events"):
        # A stream of server-sent events has no end to wait for.
        headers["Accept"] = "application/json"

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def call(case: Case[Any]) -> None:
        if operation.path.endswith("/events"):
            case.query = {
                name: value for name, value in (case.query or {}).items() if name != "transport"
            }
        # Only what is there answers with more than a 404; the deletion would end that.
        is_kept = mode is GenerationMode.POSITIVE and operation.method != "delete"
        if signed_in and is_kept and "session_id" in case.path_parameters:
            case.path_parameters["session_id"] = signed_in
        response = case.call(headers=headers, timeout=_CALL_SECONDS)
        statuses[response.status_code] += 1
        if not signed_in and operation.definition.raw.get("security") != []:
            assert response.status_code == HTTPStatus.UNAUTHORIZED, response.text
        case.validate_response(response, excluded_checks=_not_for(case, response))

    call()


def _not_for(case: Case[Any], response: Response) -> list[CheckFunction]:
    """Give the checks that have nothing to say of this answer."""
    checks: list[CheckFunction] = []
    if _code(response) in _JUDGED_BY_VALUE or _TWO_KEYS in response.text:
        checks.append(positive_data_acceptance)
    known = {one["name"] for one in case.operation.definition.raw.get("parameters", [])}
    if set(case.query or {}) - known:
        # A query that the program does not know is ignored, as everywhere on the web.
        checks.append(negative_data_rejection)
    return checks


def _code(response: Response) -> str | None:
    if not response.headers.get("content-type", [""])[0].startswith("application/problem+json"):
        return None
    code: str = response.json()["code"]
    return code
