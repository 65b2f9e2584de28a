"""Instants as whole ticks of 100 ns since 1970 (the resolution of the server that is simulated), and their
text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

TICKS_PER_SECOND = 10_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?([Zz]|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)


def ticks_of(instant: datetime) -> int:
    """The ticks of an aware instant."""
    return (instant - _EPOCH) // _MICROSECOND * 10


def ticks_of_span(span: timedelta) -> int:
    """The ticks of a span."""
    return span // _MICROSECOND * 10


def instant_of(ticks: int) -> datetime:
    """The instant of a number of ticks, floored to microseconds."""
    return _EPOCH + timedelta(microseconds=ticks // 10)


def unit_of(digits: int) -> int:
    """The ticks of one unit in the last of `digits` fraction digits (0 to 7)."""
    return int(10 ** (7 - digits))


def first_after(since: int, unit: int, *, inclusive: bool) -> int:
    """The least ticks of a time that, floored to `unit`, is greater than `since`, or not less if
    `inclusive`.
    """
    return -(-since // unit) * unit if inclusive else (since // unit + 1) * unit


def text_of(ticks: int, digits: int = 0) -> str:
    """ISO 8601 in UTC with `digits` fraction digits (0 to 7), floored."""
    second, fraction = divmod(ticks, TICKS_PER_SECOND)
    if not digits:
        return _second_text(second) + "Z"
    return f"{_second_text(second)}.{fraction:07d}"[: 20 + digits] + "Z"


def parse_instant(text: str) -> tuple[int, str]:
    """Ticks and the offset as written (`""` where there is none: read as UTC) of ISO 8601 text.

    Accepts a date alone, up to nine fraction digits (floored to seven) and any offset. Raises `ValueError`.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"'{text[:60]}' is not an ISO 8601 instant")
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    whole = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
    )
    ticks = ticks_of(whole) + (int(fraction.ljust(7, "0")[:7]) if fraction else 0)
    if offset and offset not in "Zz":
        span = int(offset[1:3]) * 3600 + int(offset[-2:]) * 60
        ticks -= (span if offset[0] == "+" else -span) * TICKS_PER_SECOND
    return ticks, offset or ""


def _second_text(second: int) -> str:
    day, rest = divmod(second, 86_400)
    minute, second = divmod(rest, 60)
    return f"{_day_text(day)}{_MINUTES[minute]}{_TWO_DIGITS[second]}"


@lru_cache(maxsize=4096)
def _day_text(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()


_TWO_DIGITS = [f"{number:02d}" for number in range(60)]
_MINUTES = [f"T{minute // 60:02d}:{minute % 60:02d}:" for minute in range(1440)]
