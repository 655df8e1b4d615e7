"""Request bodies: bounded, of the right media type, and of exactly the documented form."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar.connection import ASGIConnection, Request
from litestar.types import Receive

from app.domain.errors import ValidationFailed
from app.web.csrf import CSRF_FIELD
from app.web.exchange import exchange_of
from app.web.problems import (
    AnyRequest,
    ClientGone,
    InvalidFields,
    PayloadTooLarge,
    UnsupportedMediaType,
)

BODY_MAX_BYTES: Final = 64 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
_FORM_MAX_FIELDS: Final = 20
_DETAIL_MAX_CHARACTERS: Final = 200

_Form = TypeVar("_Form", bound=msgspec.Struct)


async def read_body(request: AnyRequest) -> bytes:
    """Read the whole body; raise PayloadTooLarge beyond 64 KiB, before reading it where it can."""
    exchange = exchange_of(request.scope)
    if exchange.body is None:
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > BODY_MAX_BYTES:
            raise PayloadTooLarge(f"a body may have at most {BODY_MAX_BYTES} bytes")
        exchange.body = await _read(request.receive)
    return exchange.body


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > BODY_MAX_BYTES:
            raise PayloadTooLarge(f"a body may have at most {BODY_MAX_BYTES} bytes")
        if not message.get("more_body", False):
            return bytes(body)


async def read_json(request: AnyRequest, form: type[_Form], *, empty: _Form | None = None) -> _Form:
    """Read a JSON object as ``form``, a struct that forbids unknown fields.

    ``empty`` is given for no body at all, where the route allows that. Raises UnsupportedMediaType
    for another media type than JSON, and ValidationFailed for everything that is not exactly one
    JSON object of the form: a repeated key is refused, since two readers would pick differently.
    """
    body = await read_body(request)
    if not body and empty is not None:
        return empty
    _require_media_type(request, "application/json")
    try:
        read = msgspec.json.decode(body, type=form)
        # msgspec keeps the last of two equal keys in silence.
        json.loads(body, object_pairs_hook=_no_repeats)
    except msgspec.ValidationError as error:
        raise _invalid_fields(str(error)) from error
    except msgspec.DecodeError as error:
        raise ValidationFailed(f"the body is not JSON: {str(error)[:200]}") from error
    except UnicodeError as error:
        raise ValidationFailed("the body is not UTF-8") from error
    except RecursionError as error:
        raise ValidationFailed("the body is nested too deeply") from error
    return read


async def read_form(request: AnyRequest) -> dict[str, str]:
    """Read the fields of a page's form; a repeated or unreadable field is a ValidationFailed.

    The CSRF token is not among them: it was looked at before the handler was asked.
    """
    fields = await _form_fields(request)
    fields.pop(CSRF_FIELD, None)
    return fields


async def read_csrf_field(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Give the CSRF token of a form; None where the body is another one, or has none."""
    if not isinstance(connection, Request) or _media_type(connection) != _FORM:
        return None
    return (await _form_fields(connection)).get(CSRF_FIELD)


async def _form_fields(request: AnyRequest) -> dict[str, str]:
    body = await read_body(request)
    _require_media_type(request, _FORM)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            max_num_fields=_FORM_MAX_FIELDS,
            errors="strict",
        )
    except ValueError as error:  # UnicodeError is one
        raise ValidationFailed("the body is not a form in UTF-8") from error
    return _no_repeats(pairs)


def _require_media_type(request: AnyRequest, expected: str) -> None:
    if _media_type(request) != expected:
        raise UnsupportedMediaType(f"the body must be {expected}")


def _media_type(request: AnyRequest) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValidationFailed("a field is given more than once")
    return fields


def _invalid_fields(message: str) -> ValidationFailed:
    """Turn msgspec's sentence into one with the field's name beside it.

    It ends in «- at `$.field`» for a value of the wrong type, and names an unknown or missing
    field in backquotes.
    """
    detail, _, path = message.partition(" - at `$")
    field = path.strip("`.") or (detail.split("`")[1] if "field `" in detail else "")
    return InvalidFields(field[:64], detail[:_DETAIL_MAX_CHARACTERS])
