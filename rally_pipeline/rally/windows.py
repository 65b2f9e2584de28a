"""Hourly windows of the feed, half-open in UTC: which of them are complete in the log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from rally_pipeline.rally.tables import changes, feed_windows

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction

HOUR = timedelta(hours=1)


def floor_hour(moment: datetime) -> datetime:
    """Start of the window that `moment` is in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def window_end(window: datetime) -> datetime:
    """End of the window that begins then; of the last hour of the year 9999, its last instant."""
    last = datetime.max.replace(tzinfo=UTC)
    return window + HOUR if window <= last - HOUR else last


def hours(start: datetime, end: datetime) -> Iterator[datetime]:
    """Starts of the windows that end at or before `end`, from the one that `start` is in."""
    window = floor_hour(start)
    while window + HOUR <= end:
        yield window
        window += HOUR


def close_windows(
    tx: Transaction, start: datetime, end: datetime, *, touched: set[str], closed_at: datetime
) -> int:
    """Note the windows of [start, end) that are complete now; returns how many were open before.

    `touched`: hours (`YYYY-MM-DDTHH`) that got entries in this read, whose counts are taken again.
    """
    known = closed_starts(tx, floor_hour(start), end)
    opened = [window for window in hours(start, end) if window not in known]
    for window in opened:
        tx.execute(
            feed_windows.insert(),
            {
                "window_start": window,
                "window_end": window + HOUR,
                "entries": count_entries(tx, window),
                "closed_at": closed_at,
            },
        )
    for hour in touched:
        window = datetime.fromisoformat(f"{hour}:00:00+00:00")
        tx.execute(
            update(feed_windows)
            .where(feed_windows.c.window_start == window)
            .values(entries=count_entries(tx, window))
        )
    return len(opened)


def closed_starts(tx: Transaction, start: datetime, end: datetime) -> set[datetime]:
    """Starts of the closed windows in [start, end)."""
    statement = select(feed_windows.c.window_start).where(
        feed_windows.c.window_start >= start, feed_windows.c.window_start < end
    )
    return {row[0] for row in tx.rows(statement)}


def count_entries(tx: Transaction, window: datetime) -> int:
    """Entries recorded for one window."""
    statement = (
        select(func.count())
        .select_from(changes)
        .where(changes.c.changed_at >= window, changes.c.changed_at < window_end(window))
    )
    return int(tx.scalar(statement) or 0)


def find_gaps(tx: Transaction, since: datetime, through: datetime) -> list[tuple[datetime, datetime]]:
    """Stretches of [since, through) that no closed window covers."""
    first = floor_hour(since)
    known = closed_starts(tx, first, through)
    gaps: list[tuple[datetime, datetime]] = []
    for window in hours(first, through):
        if window in known:
            continue
        if gaps and gaps[-1][1] == window:
            gaps[-1] = (gaps[-1][0], window + HOUR)
        else:
            gaps.append((window, window + HOUR))
    return gaps


def measure_window(tx: Transaction, window: datetime) -> tuple[int, datetime | None, datetime | None]:
    """Entries recorded for one window, and the times of the first and of the last."""
    moment = changes.c.changed_at
    found = select(func.count(), func.min(moment), func.max(moment))
    ((count, first, last),) = tx.rows(found.where(moment >= window, moment < window + HOUR))
    return int(count), first, last
