"""Storage-neutral values: the one text form in which instants, decimals and JSON travel to every database.

Instants are `YYYY-MM-DDTHH:MM:SS.ffffffZ` (27 characters, UTC, text order = time order), decimals are plain
digits without exponent and trailing zeros, JSON is compact with sorted keys. Equal values have equal texts, so
"unchanged" means the same on every database.
"""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

INSTANT_LENGTH = 27
REPLACEMENT = "\ufffd"
MAX_DECIMAL_DIGITS = 1_000

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_PLAIN_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,900})(?:\.[0-9]{0,90}[1-9])?")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_decode_exactly = msgspec.json.Decoder(float_hook=Decimal).decode
_sorted_json = msgspec.json.Encoder(order="sorted", decimal_format="number")


def clean_text(value: str) -> str:
    """Replace U+0000 and lone surrogates, which databases store differently, by U+FFFD; the same object if clean."""
    if "\0" not in value:
        if value.isascii():
            return value
        with contextlib.suppress(UnicodeEncodeError):
            value.encode()
            return value
    return _UNSTORABLE.sub(REPLACEMENT, value)


def instant_text(value: str | datetime) -> str:
    """The canonical text of an ISO 8601 instant or a datetime.

    Fractions beyond six digits are cut (floored), offsets are converted to UTC, naive values are UTC.

    Raises:
        ValueError: not an ISO 8601 instant between the years 1 and 9999.
    """
    if isinstance(value, str):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{_shown(value)} is not an ISO 8601 instant") from None
        # The usual forms need no formatting: they are the canonical text but for the fraction.
        if (
            value[-1] == "Z"
            and value[10:11] == "T"
            and value[7] == "-"
            and value[13:14] == ":"
            and value.isascii()
        ):
            size = len(value)
            if size == INSTANT_LENGTH and value[19] == ".":
                return value
            if size == 20:
                return f"{value[:19]}.000000Z"
            if size == 24 and value[19] == ".":
                return f"{value[:23]}000Z"
        if "\0" in value:
            raise ValueError(f"{_shown(value)} is not an ISO 8601 instant")
    else:
        instant = value
    if instant.tzinfo is not None and instant.tzinfo is not UTC:
        try:
            instant = instant.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{_shown(str(value))} is outside the years 1 to 9999") from None
    return f"{instant.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def parse_instant(text: str) -> datetime:
    """The aware UTC datetime of a canonical instant text."""
    return datetime.fromisoformat(text).astimezone(UTC)


def decimal_text(value: str | int | Decimal) -> str:
    """The canonical text of an exact decimal: no exponent, no trailing zeros, no `-0`.

    Raises:
        ValueError: not a finite decimal number of at most 1,000 digits; floats are refused because they are
            not exact.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError(f"a {type(value).__name__} is not an exact decimal")
    if isinstance(value, int):
        if abs(value) >= 10**MAX_DECIMAL_DIGITS:
            raise ValueError(f"a number of more than {MAX_DECIMAL_DIGITS:,} digits")
        return str(value)
    if isinstance(value, str):
        if len(value) < MAX_DECIMAL_DIGITS and _PLAIN_DECIMAL.fullmatch(value) and value != "-0":
            return value
        stripped = value.strip()
        if not _DECIMAL.fullmatch(stripped):
            raise ValueError(f"{_shown(value)} is not a decimal number")
        number = Decimal(stripped)
    else:
        number = value
    if not number.is_finite():
        raise ValueError(f"{number} is not a finite number")
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if not any(digits):
        return "0"
    if max(len(digits) + max(exponent, 0), -exponent) > MAX_DECIMAL_DIGITS:
        raise ValueError(f"a number of more than {MAX_DECIMAL_DIGITS:,} digits")
    plain = format(number, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def json_text(value: object) -> str:
    """Compact JSON with sorted keys; `msgspec.Raw` (itself or as a dict's value) is read anew; texts are cleaned.

    Raises:
        ValueError: the object is not made of JSON values.
    """
    if isinstance(value, msgspec.Raw):
        value = msgspec.json.decode(value)
    elif isinstance(value, dict) and any(type(item) is msgspec.Raw for item in value.values()):
        value = {
            key: msgspec.json.decode(item) if type(item) is msgspec.Raw else item
            for key, item in value.items()
        }
    try:
        encoded = _sorted_json.encode(value)
        if b"\\u0000" not in encoded:
            return encoded.decode()
        return _sorted_json.encode(_clean_json(value)).decode()
    except UnicodeEncodeError:
        return _sorted_json.encode(_clean_json(value)).decode()
    except (TypeError, msgspec.MsgspecError) as error:
        raise ValueError(f"not a JSON value: {error}") from None


def canonical_json(text: str) -> str:
    """The canonical form of a JSON text; its numbers keep every digit."""
    try:
        return json_text(_decode_exactly(text))
    except ValueError:
        return text  # a number of more digits than Python converts; PostgreSQL's own form is one, too


def parse_json(text: str) -> Any:
    """The Python object of a JSON text; floats are Decimals where one is beyond what a float can hold."""
    try:
        return msgspec.json.decode(text)
    except msgspec.ValidationError:
        return _decode_exactly(text)


def _clean_json(value: object) -> object:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): _clean_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean_json(item) for item in value]
    return value


def _shown(value: str) -> str:
    return repr(value if len(value) <= 40 else f"{value[:40]}…")
