"""Remote cron expressions: read, check, and write in the one form that every later reader understands.

An expression that merely "looks valid" can take a whole list of schedules down: `0 0 31 4 *` passes the usual
checks and then has no next tick. Here every accepted expression is first turned into sets of numbers, proven
to fire at least twice in twelve years, and only then written back as plain numbers. Names, `7` for Sunday,
macros, `?`, ranges that wrap (`sat-mon`) and steps wider than their field never leave this module.

Dialect: the five fields documented by SignalSmith (minute, hour, day of month, month, day of week with 0 =
Sunday, operators `* , - /`) and what Dagster accepts beyond them. What goes beyond is a warning, because the
remote may read it differently. Seconds, years, `R`, `H`, `W`, `@reboot`, `@every` and `TZ=` are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache, lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .firing_days import DayRule, firing_days, is_every_day, without_impossible

MAX_LENGTH = 200
SHORTEST_ADVISABLE_GAP = timedelta(minutes=15)
"""Below this a sync may outrun its own run time and the workspace's 100 requests a minute."""

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_REGULAR_RATIO = 1.15  # a month's 28 to 31 days still count as one rhythm; 24 h against 72 h do not
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_NOT_ZONES = frozenset({"localtime", "posixrules", "Factory"})


class CronError(ValueError):
    """The expression or the time zone cannot be scheduled; the message is one readable sentence."""


@dataclass(frozen=True)
class Cadence:
    """How far apart an expression fires on the wall clock, over twelve years."""

    shortest: timedelta
    longest: timedelta

    @property
    def is_regular(self) -> bool:
        """Whether the longest gap is nearly the shortest one, so that lateness means something."""
        return self.longest <= self.shortest * _REGULAR_RATIO


@dataclass(frozen=True)
class Cron:
    """An accepted expression: `original` is what the remote holds, `expressions` fire together when it does.

    Two are needed where Dagster's iterator goes wrong on one: `0 7 29 * *` raises through all of March of a
    leap year (it steps back over 29 February), but not when February has an expression of its own.
    """

    original: str
    expressions: tuple[str, ...]
    cadence: Cadence
    minutes: frozenset[int]
    hours: frozenset[int]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Bounds:
    name: str
    low: int
    high: int
    names: dict[str, int] = field(default_factory=dict)


_MINUTE = _Bounds("minute", 0, 59)
_HOUR = _Bounds("hour", 0, 23)
_DAY = _Bounds("day of month", 1, 31)
_MONTH = _Bounds("month", 1, 12, _MONTHS)
_WEEKDAY = _Bounds("day of week", 0, 7, _WEEKDAYS)


@lru_cache(maxsize=4096)
def read_cron(text: str) -> Cron:
    """Check one remote expression.

    Raises:
        CronError: not five fields, a value outside its field, an unsupported word, a meaning on which readers
            differ, or a date that never comes.
    """
    fields, warnings = _split(text)
    minutes = _read_field(fields[0], _MINUTE, warnings)
    hours = _read_field(fields[1], _HOUR, warnings)
    months = _read_field(fields[3], _MONTH, warnings)
    day_field, last = _read_day(fields[2], warnings)
    weekday_field, nth = _read_weekday(fields[4], warnings)
    every_day, every_weekday = fields[2] in ("*", "?"), fields[4] in ("*", "?")
    if nth and not every_day:
        raise CronError(
            f"'{text}' combines a day of month with '#' or 'L' weekdays: readers differ, use one of them"
        )
    if not every_day and not every_weekday and not nth and (len(day_field) == 31 or len(weekday_field) == 7):
        raise CronError(
            f"'{text}' sets a day field to all its values beside the other one: write * in one of them"
        )
    days = DayRule(
        days=None if every_day else day_field,
        last=last,
        months=months,
        weekdays=None if every_weekday or nth else weekday_field,
        nth=nth,
    )
    days, cadence = _prove(text, minutes, hours, days)
    if days.days is not None and days.weekdays is not None:
        warnings.append("day of month and day of week are both set: it fires on either")
    if cadence.shortest < SHORTEST_ADVISABLE_GAP:
        minutes_apart = int(cadence.shortest.total_seconds() // 60)
        warnings.append(
            f"fires {minutes_apart} min apart, which may outrun the run itself and the rate limit"
        )
    times = f"{_write_field(minutes, _MINUTE)} {_write_field(hours, _HOUR)}"
    expressions = tuple(f"{times} {_write_days(part)}" for part in _split_leap_day(days))
    return Cron(text, expressions, cadence, minutes, hours, tuple(dict.fromkeys(warnings)))


@cache
def check_zone(name: str) -> str:
    """The IANA name of a time zone, checked.

    Raises:
        CronError: unknown here, an offset such as `UTC+2`, or a file of the machine such as `localtime`.
    """
    if len(name) <= 64 and _ZONE.fullmatch(name) and name not in _NOT_ZONES:
        try:
            return ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass  # reported below together with every other unusable name
    raise CronError(f"'{name[:64]}' is not a time zone: use an IANA name such as Europe/Berlin")


def _split(text: str) -> tuple[list[str], list[str]]:
    """Five lower-case fields and the warnings so far."""
    if len(text) > MAX_LENGTH:
        raise CronError(f"longer than {MAX_LENGTH} characters")
    if not text.isascii() or not text.replace("\t", " ").strip("\r\n").isprintable():
        raise CronError(f"{text!a} holds characters that no cron field has")
    lowered = text.strip().lower()
    if not lowered:
        raise CronError("is empty: the sync is manual")
    if lowered.startswith("@"):
        if lowered not in MACROS:
            raise CronError(
                f"'{text.strip()}' is not a macro with a fixed time (use one of {', '.join(MACROS)})"
            )
        return MACROS[lowered].split(), [f"macro {lowered} is outside the documented dialect"]
    fields = lowered.split()
    if "=" in fields[0]:
        raise CronError(
            f"'{text.strip()}' sets a zone inside the expression: set the workspace's time zone instead"
        )
    if len(fields) != 5:
        raise CronError(f"'{text.strip()}' has {len(fields)} fields instead of 5")
    return fields, []


def _read_field(text: str, bounds: _Bounds, warnings: list[str]) -> frozenset[int]:
    """The values of one field without its special words."""
    values: set[int] = set()
    for part in text.split(","):
        values |= _read_part(part, bounds, warnings)
    return frozenset(values)


def _read_part(part: str, bounds: _Bounds, warnings: list[str]) -> set[int]:
    span, slash, step_text = part.partition("/")
    step = 1
    if slash:
        if not step_text.isdecimal() or not 0 < len(step_text) <= 4 or int(step_text) == 0:
            raise CronError(f"step '{step_text}' in the {bounds.name} field is not a whole number above 0")
        step = int(step_text)
    top = 6 if bounds is _WEEKDAY else bounds.high
    if step > top - bounds.low:
        warnings.append(f"step /{step} is wider than the {bounds.name} field: only its first value is left")
    if span == "*" or (span == "?" and bounds in (_DAY, _WEEKDAY) and not slash):
        return set(range(bounds.low, top + 1, step))
    first, dash, second = span.partition("-")
    low = _read_value(first, bounds, warnings)
    if not dash:
        if slash:
            warnings.append(f"'{part}' in the {bounds.name} field is read as '{low}-{top}/{step}'")
            return _fold(range(low, max(low, top) + 1, step), bounds)
        return _fold([low], bounds)
    high = _read_value(second, bounds, warnings)
    if low <= high:
        return _fold(range(low, high + 1, step), bounds)
    if slash:
        raise CronError(
            f"'{part}' in the {bounds.name} field wraps around with a step: readers differ, list the values"
        )
    warnings.append(f"range '{part}' in the {bounds.name} field wraps around")
    return _fold([*range(low, top + 1), *range(bounds.low, high + 1)], bounds)


def _read_value(text: str, bounds: _Bounds, warnings: list[str]) -> int:
    if text in bounds.names:
        warnings.append(f"name '{text}' in the {bounds.name} field is outside the documented dialect")
        return bounds.names[text]
    if not text.isdecimal() or len(text) > 4:
        raise CronError(f"'{text[:20]}' in the {bounds.name} field is not a value")
    value = int(text)
    if not bounds.low <= value <= bounds.high:
        raise CronError(f"{value} is outside the {bounds.name} field ({bounds.low}-{bounds.high})")
    if bounds is _WEEKDAY and value == 7:
        warnings.append("7 for Sunday is outside the documented dialect (0 is Sunday)")
    return value


def _fold(values: range | list[int], bounds: _Bounds) -> set[int]:
    """Weekday 7 is Sunday again."""
    return {value % 7 for value in values} if bounds is _WEEKDAY else set(values)


def _read_day(text: str, warnings: list[str]) -> tuple[frozenset[int], bool]:
    """Days of the month and whether the last day is among them by `L`."""
    parts = text.split(",")
    plain = [re.sub(r"^(\d+)-l", r"\1-31", part) for part in parts if part != "l"]
    last = len(plain) < len(parts)
    if last or plain != parts:
        warnings.append("'L' (last day of the month) is outside the documented dialect")
    return (_read_field(",".join(plain), _DAY, warnings) if plain else frozenset()), last


def _read_weekday(text: str, warnings: list[str]) -> tuple[frozenset[int], frozenset[tuple[int, int]]]:
    """Weekdays, or the nth ones (`5#2`, `L5`) as (weekday, nth) with 0 for the last."""
    parts = text.split(",")
    special = [part for part in parts if "#" in part or re.fullmatch(r"l\d", part)]
    if not special:
        return _read_field(text, _WEEKDAY, warnings), frozenset()
    if len(special) < len(parts):
        raise CronError(
            f"'{text[:40]}' mixes plain weekdays with '#' or 'L' ones: readers differ, use one form"
        )
    nth = set()
    for part in special:
        day, _, number = part.partition("#") if "#" in part else (part[1:], "", "0")
        if part.startswith("l") and "#" in part:
            raise CronError(f"'{part}' in the day of week field is not a value")
        if "#" in part and number not in ("1", "2", "3", "4", "5"):
            raise CronError(
                f"'{part}' in the day of week field: there is only a 1st to 5th weekday in a month"
            )
        nth.add((_read_value(day, _WEEKDAY, warnings) % 7, int(number)))
    warnings.append("'#' and 'L' weekdays are outside the documented dialect")
    return frozenset(), frozenset(nth)


def _prove(
    text: str, minutes: frozenset[int], hours: frozenset[int], days: DayRule
) -> tuple[DayRule, Cadence]:
    """The day part without what can never come, and the gaps; refuses what fires less than twice."""
    days = without_impossible(days)
    if days.days is not None and not days.days and not days.last:
        if days.weekdays is None:
            raise CronError(f"'{text.strip()}' never fires: no such day exists in those months")
        days = replace(days, days=None)  # day OR weekday: the weekday alone is left
    ordinals = firing_days(days)
    if len(ordinals) < 2:
        raise CronError(f"'{text.strip()}' fires less than twice in twelve years")
    times = sorted(60 * hour + minute for hour in hours for minute in minutes)
    gaps = {later - earlier for earlier, later in pairwise(times)}
    overnight = times[0] - times[-1]
    gaps |= {1440 * apart + overnight for apart in _day_gaps(ordinals)}
    return days, Cadence(timedelta(minutes=min(gaps)), timedelta(minutes=max(gaps)))


def _day_gaps(ordinals: tuple[int, ...]) -> set[int]:
    return {later - earlier for earlier, later in pairwise(ordinals)}


def _split_leap_day(days: DayRule) -> list[DayRule]:
    if days.days is None or 29 not in days.days or not {2, 3} <= days.months or is_every_day(days):
        return [days]
    return [
        replace(days, months=days.months - {2}),
        without_impossible(replace(days, months=frozenset({2}))),
    ]


def _write_days(days: DayRule) -> str:
    day, weekday = "*", "*"
    if days.nth:
        weekday = ",".join(f"{name}#{nth}" if nth else f"L{name}" for name, nth in sorted(days.nth))
    elif not is_every_day(days):
        if days.days is not None:
            day = ",".join(
                [*([_write_field(days.days, _DAY)] if days.days else []), *(["L"] if days.last else [])]
            )
        if days.weekdays is not None:
            weekday = _write_field(days.weekdays, _WEEKDAY)
    return f"{day} {_write_field(days.months, _MONTH)} {weekday}"


def _write_field(values: frozenset[int], bounds: _Bounds) -> str:
    top = 6 if bounds is _WEEKDAY else bounds.high
    ordered = sorted(values)
    if len(ordered) == top - bounds.low + 1:
        return "*"
    step = ordered[1] - ordered[0] if len(ordered) > 2 else 0
    if step > 1 and ordered == list(range(bounds.low, top + 1, step)):
        return f"*/{step}"
    return ",".join(_ranges(ordered))


def _ranges(ordered: list[int]) -> list[str]:
    """`1,2,3,5` as `1-3,5`."""
    runs: list[list[int]] = []
    for value in ordered:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
