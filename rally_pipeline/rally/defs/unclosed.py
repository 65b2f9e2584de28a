"""Which ended hours a run should still materialise, so that what Dagster shows is what the warehouse knows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from rally_pipeline.orchestration.windows import HOUR, hour_of, window_key
from rally_pipeline.rally.defs.names import FEED, SYNCED_THROUGH

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import RallyMirror

RECENT = 24 * HOUR
WEEK = 7 * 24 * HOUR
MOST_WINDOWS = 7 * 24
"""Asked for at once; the next tick asks for the rest."""


def windows_to_materialize(mirror: RallyMirror, instance: dg.DagsterInstance, at: datetime) -> list[datetime]:
    """Starts of hours ended `at` (server time) that are not closed, were never materialised, or only before closing.

    A read for a later hour closes the hours before it in the warehouse; without a materialisation of their own they
    would look as if nobody had read them. Closed hours of more than a week ago are left to a backfill: the feed may not
    reach back to them any more.
    """
    base = mirror.coverage().base
    if base is None:
        return []
    unclosed = set(mirror.windows_to_close(at))
    asset = dg.AssetKey(list(FEED))
    materialized = instance.get_materialized_partitions(asset)
    recent = _read_through(instance, asset, [start for start in _ended(base, at) if at - start <= RECENT])
    wanted = [
        start
        for start in _ended(base, at)
        if start in unclosed
        or (at - start <= WEEK and window_key(start) not in materialized)
        or (start in recent and recent[start] < start + HOUR)
    ]
    return wanted[:MOST_WINDOWS]


def _ended(base: datetime, at: datetime) -> list[datetime]:
    first = hour_of(base)
    return [first + n * HOUR for n in range((hour_of(at) - first) // HOUR)]


def _read_through(
    instance: dg.DagsterInstance, asset: dg.AssetKey, windows: list[datetime]
) -> dict[datetime, datetime]:
    """Up to when the log was complete at the last materialisation of each of these hours, by the server's clock.

    Hours that never were materialised are left out.
    """
    found: dict[datetime, datetime] = {}
    for start in windows:
        chosen = dg.AssetRecordsFilter(asset, asset_partitions=[window_key(start)])
        for record in instance.fetch_materializations(chosen, limit=1).records:
            event = record.asset_materialization
            through = event.metadata.get(SYNCED_THROUGH) if event is not None else None
            found[start] = start
            if isinstance(through, dg.TimestampMetadataValue):
                found[start] = datetime.fromtimestamp(through.value, UTC)
    return found
