"""Rally's part of `status`."""

from __future__ import annotations

from rally_pipeline.cli.status import SystemStatus, TableLine
from rally_pipeline.rally.connection import open_mirror
from rally_pipeline.settings import Settings


def read_status(settings: Settings) -> SystemStatus:
    """The mirror as it stands in the warehouse."""
    with open_mirror(settings) as mirror:
        status = mirror.status()
        coverage = mirror.coverage()
    problems = [coverage.problem] if coverage.problem else []
    lines = tuple(
        TableLine(
            table=table.table,
            rows=table.rows,
            synced_through=status.synced_through,
            lag_seconds=status.lag_seconds,
            open_marks=table.open_marks,
            oldest_mark_seconds=table.oldest_mark_seconds,
            quarantined=table.quarantined,
            last_run=table.synced_at,
        )
        for table in status.tables
    )
    return SystemStatus("rally", lines, tuple(problems))
