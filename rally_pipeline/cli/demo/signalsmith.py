"""SignalSmith's part of the demo: its two syncs become known, and each gets exactly one run, lost answer or not."""

from __future__ import annotations

from typing import Any

from rally_pipeline.cli.demo.stage import Stage, TableLine
from rally_pipeline.cli.sync.signalsmith import catch_up

_SYNC = ("id", "name", "status", "sync_mode", "primary_key", "schedule", "model_id", "destination_id")
_RUN = ("id", "sync_id", "status", "rows_synced", "rows_failed")


def perform(stage: Stage) -> list[TableLine]:
    """Fetch the catalog, run both syncs (of one, the answer to the trigger is lost), and compare with SignalSmith."""
    stage.sandbox.faults.add("lost_answer", api="signalsmith", method="POST", path="*/trigger")
    catch_up(stage.session)
    truth = stage.sandbox.signalsmith.truth()
    return [
        _compare(stage, "signalsmith_syncs", truth["syncs"], _SYNC),
        _compare(stage, "signalsmith_runs", truth["runs"], _RUN),
    ]


def _compare(stage: Stage, table: str, records: list[dict[str, Any]], names: tuple[str, ...]) -> TableLine:
    truth = {tuple(record[name] for name in names) for record in records}
    known = {tuple(row[name] for name in names) for row in stage.tables.read(table).values()}
    return stage.line(table, len(truth), max(len(truth - known), len(known - truth)))
