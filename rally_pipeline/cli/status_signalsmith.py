"""SignalSmith's part of `status`: the catalog, and the latest run of every sync as far as Dagster saw it."""

from __future__ import annotations

from rally_pipeline.cli.status import SystemStatus, TableLine
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith.connection import open_warehouse
from rally_pipeline.signalsmith.status import read_sync_status


def read_status(settings: Settings) -> SystemStatus:
    """The two tables and what deserves a look. Makes no request."""
    with open_warehouse(settings) as warehouse:
        status = read_sync_status(settings, warehouse)
    lines = (
        TableLine(
            table="signalsmith_syncs",
            rows=status.syncs,
            synced_through=status.fetched_at,
            lag_seconds=status.age_seconds,
            open_marks=None,
            oldest_mark_seconds=None,
            quarantined=status.skipped,
            last_run=status.fetched_at,
        ),
        TableLine(
            table="signalsmith_runs",
            rows=status.runs,
            synced_through=None,
            lag_seconds=None,
            open_marks=status.live,
            oldest_mark_seconds=status.oldest_live_seconds,
            quarantined=0,
            last_run=status.latest_run,
        ),
    )
    return SystemStatus("signalsmith", lines, status.problems)
