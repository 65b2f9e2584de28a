"""SignalSmith's part of the demo: its two syncs become known, and each gets exactly one run, lost answer or not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rally_pipeline.cli.demo.stage import DemoLine, Stage
from rally_pipeline.signalsmith.client import connect
from rally_pipeline.signalsmith.connection import open_warehouse
from rally_pipeline.signalsmith.refresh import CatalogRefresh
from rally_pipeline.signalsmith.run_request import RunPolicy, RunRequest
from rally_pipeline.signalsmith.runs import SyncRunner

if TYPE_CHECKING:
    from rally_pipeline.signalsmith.client import SignalSmithClient
    from rally_pipeline.signalsmith.refresh import RefreshResult
    from rally_pipeline.signalsmith.run_request import RunOutcome
    from rally_pipeline.warehouse import Warehouse

STREAM = "signalsmith syncs"


def perform(stage: Stage) -> list[DemoLine]:
    """Fetch the catalog, run both syncs (of one, the answer to the trigger is lost), and count the runs there."""
    stage.sandbox.control("signalsmith", "switch", {"scheduler": False})
    for path in stage.settings.home_path.glob("signalsmith_catalog.*"):
        path.unlink()  # of an earlier demo
    client = connect(stage.settings, clock=stage.clock)
    try:
        with open_warehouse(stage.settings) as warehouse:
            begun = time.monotonic()
            refreshed = CatalogRefresh(stage.settings, client, warehouse, stage.clock).refresh()
            catalog = _catalog_line(stage, refreshed, time.monotonic() - begun)
            return [catalog, _run_line(stage, client, warehouse, refreshed)]
    finally:
        client.http.close()


def _run_line(
    stage: Stage, client: SignalSmithClient, warehouse: Warehouse, refreshed: RefreshResult
) -> DemoLine:
    begun, before = time.monotonic(), client.http.usage
    # The sandbox's clock runs fast: its own scheduler may have run a sync before this part began.
    earlier = {run["id"] for run in stage.sandbox.signalsmith.truth()["runs"]}
    stage.sandbox.faults.add("lost_answer", api="signalsmith", method="POST", path="*/trigger")
    entries = refreshed.catalog.present
    outcomes: list[RunOutcome] = []
    for number, entry in enumerate(entries):
        stage.progress(STREAM, number, len(entries))
        runner = SyncRunner(warehouse, client, clock=stage.clock, notice=lambda line: None)  # noqa: ARG005
        outcomes.append(runner.run(RunRequest(entry.id, "demo"), RunPolicy()))
    stage.progress(STREAM, len(entries), len(entries))
    # three for each: the sync, its runs, the trigger; the looks depend on how long the run takes
    looks = sum(outcome.polls for outcome in outcomes)
    return DemoLine(
        "signalsmith_runs",
        len(outcomes),
        len(outcomes),
        0,
        0,
        (client.http.usage - before).requests,
        3 * len(entries) + looks,
        time.monotonic() - begun,
        _unlike(stage, outcomes, earlier),
    )


def _catalog_line(stage: Stage, refreshed: RefreshResult, seconds: float) -> DemoLine:
    truth = {sync["id"]: sync["name"] for sync in stage.sandbox.signalsmith.truth()["syncs"]}
    known = {entry.id: entry.name for entry in refreshed.catalog.present}
    differences = len(set(truth.items()) ^ set(known.items()))
    rows = len(refreshed.catalog.entries)
    # the list, the models for lineage, the workspace's time zone
    return DemoLine("signalsmith_syncs", rows, rows, 0, 0, refreshed.usage.requests, 3, seconds, differences)


def _unlike(stage: Stage, outcomes: list[RunOutcome], earlier: set[str]) -> int:
    """Runs since this part began that are in SignalSmith and not here, or the other way round, or with other counts."""
    truth = {
        (run["id"], run["status"], run["rows_synced"], run["rows_failed"])
        for run in stage.sandbox.signalsmith.truth()["runs"]
        if run["id"] not in earlier
    }
    known = {
        (outcome.run.id, outcome.run.status, outcome.run.rows_synced, outcome.run.rows_failed)
        for outcome in outcomes
    }
    return len(truth ^ known)
