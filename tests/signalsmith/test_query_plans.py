"""What the engine asks of runs and intents is found by an index, however long their history has grown."""

from __future__ import annotations

from pathlib import Path

from rally_pipeline.signalsmith.run_history import RunHistory
from rally_pipeline.signalsmith.tables import intents, runs
from tests.signalsmith.bench import Bench
from tests.warehouse.query_plans import fill, refresh_statistics, watched_plans


def grow_old(bench: Bench) -> None:
    """Years of reported runs of other syncs, and the requests that led to them."""
    moment = f"'{bench.local.now().isoformat()}'"
    run = {
        "sync_id": "'sync-' || n / 400",
        "id": "'run-' || n",
        "status": "'completed'",
        "created_at": moment,
        "completed_at": moment,
        "rows_synced": "1",
        "rows_failed": "0",
        "_synced_at": moment,
    }
    intent = {
        "sync_id": "'sync-' || n / 400",
        "request": "'tick-' || n",
        "state": "'bound'",
        "attempts": "1",
        "noted_at": moment,
        "noted_runs": "'[]'",
        "run_id": "'run-' || n",
        "updated_at": moment,
    }
    with bench.warehouse.transaction("years") as tx:
        sqlite = tx.connection.dialect.name == "sqlite"
        fill(tx.connection, runs, 20_000, **run, reported="1" if sqlite else "TRUE")
        fill(tx.connection, intents, 20_000, **intent)
    with bench.warehouse.transaction("statistics") as tx:
        refresh_statistics(tx.connection)


def test_no_operation_reads_the_history_from_end_to_end(tmp_path: Path, warehouse_url: str) -> None:
    bench = Bench(tmp_path, warehouse_url=warehouse_url)
    bench.refresh()
    bench.run(bench.sync_id())
    grow_old(bench)
    with watched_plans(["signalsmith_runs", "signalsmith_intents"]) as watch:
        bench.close()
        bench.run(bench.sync_id(), key="run:2")
        history = RunHistory(bench.warehouse, bench.local)
        recorded = bench.run_ids(bench.sync_id())
        assert history.ended({bench.sync_id(): recorded[-1]}) == {bench.sync_id()}
        assert history.newest(bench.sync_id()) is not None
        assert history.followers(recorded) is not None
        found = history.unreported(100)
        assert len(found) == 2
        history.mark_reported(found)
        assert history.unreported(100) == []
    assert watch.touched() == {"signalsmith_runs", "signalsmith_intents"}
    assert watch.scans() == []
    bench.close()
