"""On which days a cron fires: day of month, month and weekday as sets, evaluated over twelve years of calendar."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache, lru_cache

_LONGEST = {1: 31, 2: 29, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}


@dataclass(frozen=True)
class DayRule:
    """The day part. `days` and `weekdays` are None for "every", `last` is day `L`, `nth` holds pairs of a
    weekday and 1-5, or 0 for the last one of the month."""

    days: frozenset[int] | None
    last: bool
    months: frozenset[int]
    weekdays: frozenset[int] | None
    nth: frozenset[tuple[int, int]]

    def matches(self, day: _Day) -> bool:
        if day.month not in self.months:
            return False
        if self.nth:
            return (day.weekday, day.nth) in self.nth or (
                day.is_last_weekday and (day.weekday, 0) in self.nth
            )
        by_day = self.days is not None and (day.number in self.days or (self.last and day.is_last))
        if self.weekdays is None:
            return by_day or self.days is None
        by_weekday = day.weekday in self.weekdays
        return by_weekday if self.days is None else by_day or by_weekday


@dataclass(frozen=True, slots=True)
class _Day:
    ordinal: int
    number: int
    month: int
    weekday: int
    nth: int
    is_last: bool
    is_last_weekday: bool


@lru_cache(maxsize=2048)
def firing_days(days: DayRule) -> tuple[int, ...]:
    """Ordinals of the days in 2024 to 2035 on which it fires."""
    return tuple(day.ordinal for day in _calendar() if days.matches(day))


@cache
def _calendar() -> tuple[_Day, ...]:
    """Twelve years of days with three leap days, so that the answer depends on the expression alone."""
    first, last = date(2024, 1, 1), date(2035, 12, 31)
    days = []
    for ordinal in range(first.toordinal(), last.toordinal() + 1):
        day = date.fromordinal(ordinal)
        days.append(
            _Day(
                ordinal=ordinal,
                number=day.day,
                month=day.month,
                weekday=day.isoweekday() % 7,
                nth=(day.day - 1) // 7 + 1,
                is_last=(day + timedelta(days=1)).day == 1,
                is_last_weekday=(day + timedelta(days=7)).month != day.month,
            )
        )
    return tuple(days)


def without_impossible(days: DayRule) -> DayRule:
    """The day numbers that exist in at least one of the months."""
    longest = max(_LONGEST[month] for month in days.months)
    return days if days.days is None else replace(days, days=frozenset(d for d in days.days if d <= longest))


def is_every_day(days: DayRule) -> bool:
    return (days.days is None or len(days.days) == 31) and (days.weekdays is None or len(days.weekdays) == 7)
