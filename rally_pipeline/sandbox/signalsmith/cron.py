"""The scheduler's own reading of cron: the documented dialect only, and nothing shared with the client.

Fields: minute 0-59, hour 0-23, day 1-31, month 1-12, weekday 0-6 with 0 = Sunday; operators `* , - /`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Gap = Literal["end", "skip", "shift"]
Fold = Literal["second", "first", "both"]
_BOUNDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
_HORIZON_DAYS = 8 * 366 + 1


class BadCronError(ValueError):
    """The expression is not in the documented dialect; the text is what the API answers."""


@dataclass(frozen=True)
class CronRule:
    """When a sync runs by itself."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    @classmethod
    def read(cls, text: str) -> CronRule:
        """Raises `BadCronError`."""
        fields = text.split()
        if len(fields) != 5:
            raise BadCronError(f"invalid schedule: expected 5 fields, got {len(fields)}")
        minutes, hours, days, months, weekdays = (
            _read(field, *bounds) for field, bounds in zip(fields, _BOUNDS, strict=True)
        )
        return cls(minutes, hours, days, months, weekdays, fields[2] == "*", fields[4] == "*")

    def ticks(
        self, after: datetime, zone: ZoneInfo, *, gap: Gap = "end", fold: Fold = "second"
    ) -> Iterator[datetime]:
        """Instants later than `after`, ascending, for eight years.

        `gap`: a local time that the clocks jump over fires at the end of the gap, never, or as much later
        as the gap is long. `fold`: a local time that comes twice fires the second time, the first, or both.
        """
        local = after.astimezone(zone)
        last = after
        for offset in range(-1, _HORIZON_DAYS):
            day = local.date() + timedelta(days=offset)
            if not self._fires_on(day):
                continue
            # on a day without a change of the clocks the hours come in order, so a part of the day is enough
            groups = (
                [sorted(self.hours)] if _clocks_change(day, zone) else [[hour] for hour in sorted(self.hours)]
            )
            for hours in groups:
                instants = {
                    instant
                    for hour in hours
                    for minute in self.minutes
                    for instant in self._instants(day, hour, minute, zone, gap, fold)
                }
                for instant in sorted(instants):
                    if instant > last:
                        last = instant
                        yield instant

    def _fires_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday

    def _instants(
        self, day: date, hour: int, minute: int, zone: ZoneInfo, gap: Gap, fold: Fold
    ) -> list[datetime]:
        wall = datetime.combine(day, time(hour, minute), zone)
        first, second = wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC)
        if first == second:
            return [first]
        if first < second:  # the wall time comes twice; hours that fire anyway fire in both
            every_hour = len(self.hours) == 24
            return [first, second] if fold == "both" or every_hour else [first if fold == "first" else second]
        if gap == "skip":
            return []
        return [first] if gap == "shift" else [_end_of_gap(second, first, zone)]


def _clocks_change(day: date, zone: ZoneInfo) -> bool:
    midnight = datetime.combine(day, time(0), zone)
    return midnight.utcoffset() != (midnight + timedelta(days=1)).utcoffset()


def _end_of_gap(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """The instant between the two at which the clocks jump; minutes are exact enough."""
    before = low.astimezone(zone).utcoffset()
    instant = low
    while instant < high:
        instant += timedelta(minutes=1)
        if instant.astimezone(zone).utcoffset() != before:
            return instant
    return high


def _read(text: str, name: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isascii() and step.isdecimal() and int(step) > 0):
            raise BadCronError(f"invalid schedule: bad step in {name} field: {part}")
        first, last = (low, high) if span == "*" else _span(span, name, low, high)
        if slash and span != "*" and "-" not in span:
            raise BadCronError(f"invalid schedule: a step needs * or a range in {name} field: {part}")
        values.update(range(first, last + 1, int(step) if slash else 1))
    return frozenset(values)


def _span(text: str, name: str, low: int, high: int) -> tuple[int, int]:
    ends = text.split("-")
    if len(ends) > 2 or not all(end.isascii() and end.isdecimal() for end in ends):
        raise BadCronError(f"invalid schedule: bad value in {name} field: {text}")
    first, last = int(ends[0]), int(ends[-1])
    if not low <= first <= last <= high:
        raise BadCronError(f"invalid schedule: {name} out of range: {text}")
    return first, last
