"""Between which instants a remote scheduler may start the run of one tick."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from rally_pipeline.signalsmith.cron import CronError, read_cron

EARLY = timedelta(seconds=5)
"""Several servers, several clocks: a run this much older than its tick still belongs to it."""


@dataclass(frozen=True, slots=True)
class TickWindow:
    """A run for the tick begins at `first` at the earliest and is due at `last` at the latest.

    Both are the tick itself, except where the clocks change. A local time that comes twice may be run at either
    of its instants. A local time that is skipped fires in Dagster when the clocks jump; another scheduler may
    count it from before or after the jump.
    """

    tick: datetime
    first: datetime
    last: datetime

    def holds(self, created: datetime | None) -> bool:
        """Whether a run created then can be this tick's or a later one."""
        return created is not None and created >= self.first - EARLY


def tick_window(tick: datetime, zone: str, cron: str = "") -> TickWindow:
    """The window of a tick, an aware instant, whose cron is read in `zone`.

    With the `cron` the window stays exact where every scheduler agrees: for one that fires every hour anyway, and
    for a time that exists on its own account when the clocks jump to it.
    """
    instant = tick.astimezone(UTC)
    local = instant.astimezone(ZoneInfo(zone))
    hours, minutes = _wall_times(cron)
    if len(hours) == 24:
        return TickWindow(instant, instant, instant)
    first, second = (local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    if first < second:
        return TickWindow(instant, first, second)
    before = (instant - timedelta(seconds=1)).astimezone(ZoneInfo(zone)).utcoffset()
    after = local.utcoffset()
    if (
        before is None
        or after is None
        or after <= before
        or (local.hour in hours and local.minute in minutes)
    ):
        return TickWindow(instant, instant, instant)
    gap = after - before
    return TickWindow(instant, instant - gap, instant + gap)


def _wall_times(cron: str) -> tuple[frozenset[int], frozenset[int]]:
    """Hours and minutes that the expression names; nothing where it is not known."""
    try:
        found = read_cron(cron)
    except CronError:
        return frozenset(), frozenset()
    return found.hours, found.minutes
