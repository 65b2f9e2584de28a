"""Hourly windows as Dagster partitions: keys, contiguous ranges, and the run requests made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import dagster as dg

from rally_pipeline.settings import FEED_START_FORMAT

if TYPE_CHECKING:
    from dagster._core.instance import DynamicPartitionsStore

HOUR = timedelta(hours=1)
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
READ_ON_TAG = "rally/read_on"
"""Of runs that are asked for because something is new: they read from the log's end to the source's present, whatever
their windows are. Which windows there are is decided by this machine's clock, which may be wrong."""


class Hours(dg.HourlyPartitionsDefinition):
    """Equal to Dagster's hours in everything but the time it takes to list them.

    Each step that stands on the feed has Dagster list every hour since the start of the feed. Dagster asks its cron
    parser for each of them: 0.1 s a step and a year. In UTC an hour follows an hour.
    """

    def get_partition_keys(
        self,
        current_time: datetime | None = None,
        dynamic_partitions_store: DynamicPartitionsStore | None = None,
    ) -> Sequence[str]:
        """All keys, oldest first."""
        with dg.partition_loading_context(current_time, dynamic_partitions_store):
            first, last = self.get_first_partition_window(), self.get_last_partition_window()
        return list(_keys(first.start, last.start)) if first and last else []


@lru_cache(maxsize=1)
def _keys(first: datetime, last: datetime) -> tuple[str, ...]:
    return tuple(window_key(first + n * HOUR) for n in range((last - first) // HOUR + 1))


def hourly_partition(start: datetime) -> dg.HourlyPartitionsDefinition:
    """Hours in UTC from `start` on, the running hour included."""
    return Hours(start_date=start, timezone="UTC", fmt=FEED_START_FORMAT, end_offset=1)


def hour_of(instant: datetime) -> datetime:
    """The start of the UTC hour that holds `instant`."""
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def window_key(start: datetime) -> str:
    """The partition key of the hour that begins at `start`."""
    return start.astimezone(UTC).strftime(FEED_START_FORMAT)


def window_start(key: str) -> datetime:
    """The inverse of `window_key`."""
    return datetime.strptime(key, FEED_START_FORMAT).replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WindowRange:
    """Consecutive hours; `first` and `last` are the starts of the outermost ones, both included."""

    first: datetime
    last: datetime

    @property
    def tags(self) -> dict[str, str]:
        """Run tags that make one run materialise every hour of the range."""
        return {RANGE_START_TAG: window_key(self.first), RANGE_END_TAG: window_key(self.last)}

    @property
    def tags_to_read_on(self) -> dict[str, str]:
        """The same for a run that reads what is new."""
        return {**self.tags, READ_ON_TAG: "true"}

    def __str__(self) -> str:
        first, last = window_key(self.first), window_key(self.last)
        return first if first == last else f"{first} to {last}"


def contiguous_ranges(windows: Iterable[datetime], *, not_before: datetime) -> Iterator[WindowRange]:
    """The fewest ranges that hold exactly these hours, oldest first; hours before `not_before` have no partition."""
    first = last = None
    for start in sorted({hour_of(window) for window in windows}):
        if start < not_before:
            continue
        if first is not None and last is not None and start - last != HOUR:
            yield WindowRange(first, last)
            first = None
        first = start if first is None else first
        last = start
    if first is not None and last is not None:
        yield WindowRange(first, last)
