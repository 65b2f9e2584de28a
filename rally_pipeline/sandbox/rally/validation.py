"""From the body of a write to stored fields: what the API accepts, and the messages for what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from .errors import RallyError
from .guids import read_guid
from .instants import TICKS_PER_SECOND, parse_instant, text_of
from .schema import EntitySpec, FieldSpec

_EMAIL = re.compile(r"[^@\s,;<>\"]{1,64}@[^@\s,;<>\"]{1,190}\.[^@\s,;<>\".]{2,63}")
GREATEST_DECIMAL = Decimal(10**28)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FRACTION_DIGITS = 28
_WIDE = Context(prec=100)


class RefusedValueError(ValueError):
    """A value does not fit its field; the text is the message for the client."""


def accept_fields(spec: EntitySpec, body: object, *, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All stored fields after this body: those of `base` (a merge), or the defaults, with the writable ones
    replaced.

    Unknown and read-only members are ignored. Raises `RallyError` 400 with a message for each field at
    fault.
    """
    if not isinstance(body, dict):
        raise RallyError(400, "The body is not a JSON object.")
    fields = dict(base) if base is not None else spec.blank()
    problems: dict[str, list[str]] = {}
    for field in spec.fields:
        if not field.writable:
            continue
        try:
            if field.name in body:
                value = _accept(field, body[field.name])
                fields[field.name] = field.default if value is None else value
            if field.required and not _is_given(fields[field.name]):
                raise RefusedValueError("The field is required.")
        except RefusedValueError as problem:
            problems[field.name] = [str(problem)]
    if problems:
        raise RallyError(400, "One or more fields are invalid.", problems)
    return fields


def _is_given(value: object) -> bool:
    return value is not None and (not isinstance(value, str) or bool(value.strip()))


def _accept(field: FieldSpec, value: object) -> Any:
    if value is None:
        return None
    accepted = _ACCEPT[field.kind](value)
    if field.choices and accepted not in field.choices:
        raise RefusedValueError(f"Use one of {', '.join(field.choices)}.")
    if field.limits is not None and not field.limits[0] <= accepted <= field.limits[1]:
        raise RefusedValueError(f"Must be between {field.limits[0]} and {field.limits[1]}.")
    return accepted


def _accept_text(value: object) -> str:
    if not isinstance(value, str):
        raise RefusedValueError("Must be a string.")
    if not value.isascii() and _SURROGATE.search(value):
        raise RefusedValueError("Holds half of a surrogate pair.")
    return value


def _accept_email(value: object) -> str:
    text = _accept_text(value).strip()
    if not _EMAIL.fullmatch(text):
        raise RefusedValueError("Is not an e-mail address.")
    return text


def _accept_guid(value: object) -> str:
    guid = read_guid(value) if isinstance(value, str) else None
    if guid is None:
        raise RefusedValueError("Is not a GUID.")
    return guid


def _accept_integer(value: object) -> int:
    if isinstance(value, Decimal | float) and value % 1 == 0:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedValueError("Must be a whole number.")
    return value


def _accept_decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise RefusedValueError("Must be a number.")
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise RefusedValueError("Must be a number.") from None
    if not number.is_finite() or abs(number) > GREATEST_DECIMAL:
        raise RefusedValueError(f"Must be a number of at most {GREATEST_DECIMAL:f}.")
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_FRACTION_DIGITS:
        number = number.quantize(Decimal(1).scaleb(-_FRACTION_DIGITS), context=_WIDE)
    return Decimal(f"{number:f}")


def _accept_instant(value: object) -> str:
    if not isinstance(value, str):
        raise RefusedValueError("Must be an ISO 8601 instant.")
    try:
        ticks, _ = parse_instant(value)
        return text_of(ticks, 7 if ticks % TICKS_PER_SECOND else 0)
    except (ValueError, OverflowError):
        raise RefusedValueError("Must be an ISO 8601 instant.") from None


def _accept_tags(value: object) -> list[str]:
    if not isinstance(value, list):
        raise RefusedValueError("Must be a list of strings.")
    return [_accept_text(item) for item in value]


_ACCEPT: dict[str, Callable[[object], Any]] = {
    "text": _accept_text,
    "email": _accept_email,
    "guid": _accept_guid,
    "integer": _accept_integer,
    "decimal": _accept_decimal,
    "instant": _accept_instant,
    "tags": _accept_tags,
}
