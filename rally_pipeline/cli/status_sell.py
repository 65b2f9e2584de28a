"""Sell's part of `status`."""

from __future__ import annotations

from rally_pipeline.cli.status import SystemStatus, TableLine
from rally_pipeline.sell.connection import open_mirror
from rally_pipeline.settings import Settings


def read_status(settings: Settings) -> SystemStatus:
    """The mirror as it stands in the warehouse."""
    with open_mirror(settings) as mirror:
        status = mirror.status()
    problems = []
    if status.stopped_reason not in (None, "drained"):
        problems.append(f"the last drain ended early: {status.stopped_reason}")
    if status.acks_pending:
        problems.append(
            f"{status.acks_pending} stored pages are not acknowledged yet; their items come again"
        )
    if status.raw_items:
        problems.append(f"{status.raw_items} items of unknown types are kept as they came (sell_queue_items)")
    if status.unplaced_marks:
        problems.append(f"{status.unplaced_marks} failed objects of unknown types (sell_failed_objects)")
    if status.sweep_held:
        problems.append(f"{status.sweep_held} rows were not sent again: see `rally-pipeline sell sweep`")
    lines = tuple(
        TableLine(
            table=table.table,
            rows=table.rows,
            synced_through=status.synced_through,
            lag_seconds=status.lag_seconds,
            open_marks=table.open_marks,
            oldest_mark_seconds=table.oldest_mark_seconds,
            quarantined=table.quarantined,
            last_run=status.checked_at,
        )
        for table in status.tables
    )
    return SystemStatus("sell", lines, tuple(problems))
