"""Between which instants a remote scheduler may start the run of one tick."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

EARLY = timedelta(seconds=5)
"""Several servers, several clocks: a run this much older than its tick still belongs to it."""


@dataclass(frozen=True, slots=True)
class TickWindow:
    """A run for the tick begins at `first` at the earliest and is due at `last` at the latest.

    Both are the tick itself, except where the clocks change. A local time that comes twice may be run at either of its
    instants. A local time that is skipped fires in Dagster when the clocks jump; another scheduler may count it
    from before or after the jump.
    """

    first: datetime
    last: datetime

    def holds(self, created: datetime | None) -> bool:
        """Whether a run created then can be this tick's or a later one."""
        return created is not None and created >= self.first - EARLY


def tick_window(tick: datetime, zone: str) -> TickWindow:
    """The window of a tick, an aware instant, whose cron is read in `zone`."""
    instant = tick.astimezone(UTC)
    local = instant.astimezone(ZoneInfo(zone))
    first, second = (local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    if first < second:
        return TickWindow(first, second)
    before = (instant - timedelta(seconds=1)).astimezone(ZoneInfo(zone)).utcoffset()
    after = local.utcoffset()
    if before is not None and after is not None and after > before:
        gap = after - before
        return TickWindow(instant - gap, instant + gap)
    return TickWindow(instant, instant)
