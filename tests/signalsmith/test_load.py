"""The location loads in a fresh interpreter, without network and database, whatever the catalog file looks like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rally_pipeline.signalsmith.catalog_file import FILE_NAME, PREVIOUS
from tests.signalsmith.bench import URL, Bench

MakeBench = Callable[..., Bench]
ROOT = Path(__file__).parents[2]

PROBE = """
import json, sys, time
blocked = {"socket.connect", "socket.getaddrinfo", "socket.bind", "sqlite3.connect"}
def guard(event, arguments):
    if event in blocked:
        raise RuntimeError(f"loading must not use {event} {arguments}")
sys.addaudithook(guard)
used = time.process_time()
import dagster
dagster_cpu_seconds = time.process_time() - used
begun, used = time.perf_counter(), time.process_time()
from rally_pipeline.definitions import defs
repository = defs.get_repository_def()
print("RESULT" + json.dumps({
    "seconds": time.perf_counter() - begun,
    "cpu_seconds": time.process_time() - used,
    "dagster_cpu_seconds": dagster_cpu_seconds,
    "assets": sorted("/".join(key.path) for key in repository.assets_defs_by_key if key.path[0] == "signalsmith"),
    "jobs": sorted(name for name in repository.job_names if name.startswith("signalsmith_")),
    "schedules": sorted(each.name for each in repository.schedule_defs if each.name.startswith("signalsmith_")),
    "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    "heavy": [name for name in ("requests", "sqlalchemy", "pandas", "psycopg", "urllib3") if name in sys.modules],
}))
"""


def load(bench: Bench, *, code: str = PROBE) -> dict[str, Any]:
    """Load the location as a code server does, in a process of its own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RALLY", "SELL"))
    }
    environment |= bench.sandbox.environment(URL)
    environment |= {"RALLY_PIPELINE_HOME": str(bench.home), "SYNCS_DIR": str(bench.home / "syncs")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.split("RESULT", 1)[1])
    return {**found, "log": done.stderr}


def test_a_good_catalog(bench: Bench) -> None:
    bench.refresh()
    loaded = load(bench)
    assert loaded["assets"] == [
        "signalsmith/catalog", "signalsmith/contacts_to_newsletter", "signalsmith/deals_to_finance",
    ]  # fmt: skip
    assert loaded["jobs"] == [
        "signalsmith_catalog", "signalsmith_contacts_to_newsletter", "signalsmith_deals_to_finance",
    ]  # fmt: skip
    assert loaded["schedules"] == [
        "signalsmith_contacts_to_newsletter_schedule", "signalsmith_deals_to_finance_schedule",
    ]  # fmt: skip
    assert {"signalsmith_catalog_sensor", "signalsmith_runs_sensor", "sync_trigger_sensor"} <= set(
        loaded["sensors"]
    )
    assert loaded["heavy"] == []


def test_a_missing_catalog_shows_the_asset_that_fetches_it(bench: Bench) -> None:
    loaded = load(bench)
    assert loaded["assets"] == ["signalsmith/catalog"]
    assert "materialize signalsmith/catalog to see the syncs" in loaded["log"]


def test_a_corrupt_catalog_uses_the_one_before(bench: Bench) -> None:
    bench.refresh()
    bench.refresh()
    (bench.home / FILE_NAME).write_bytes(b'{"version": 1, "entries": ')
    loaded = load(bench)
    assert len(loaded["schedules"]) == 2
    assert PREVIOUS in loaded["log"]


def test_an_old_catalog_is_used_as_it_is(bench: Bench) -> None:
    bench.refresh()
    content = json.loads((bench.home / FILE_NAME).read_bytes())
    content |= {"fetched_at": "2020-01-01T00:00:00+00:00", "version": 0}
    (bench.home / FILE_NAME).write_text(json.dumps(content))
    assert len(load(bench)["schedules"]) == 2


def test_a_shrunken_catalog_is_not_believed(make_bench: MakeBench) -> None:
    bench = make_bench(syncs=14)
    bench.refresh()
    bench.refresh()
    content = json.loads((bench.home / FILE_NAME).read_bytes())
    content["entries"] = content["entries"][:3]
    (bench.home / FILE_NAME).write_text(json.dumps(content))
    loaded = load(bench)
    assert len(loaded["assets"]) == 15
    assert "not believed" in loaded["log"]


def test_a_hostile_catalog_costs_only_the_bad_syncs_their_schedules(make_bench: MakeBench) -> None:
    bench = make_bench(hostile=True)
    scheduled = bench.refresh().scheduled
    loaded = load(bench)
    assert len(loaded["assets"]) == 45
    assert len(loaded["jobs"]) == 45
    assert len(loaded["schedules"]) == scheduled == 28


def test_a_hand_made_catalog_full_of_nonsense_still_loads(bench: Bench) -> None:
    entries = [
        {"id": f"id {number}\x00\u202e", "slug": f"s{number}", "name": value, "schedule": value, "status": "active",
         "field_mapping": [{"source_column": value, "destination_field": value}], "tables": [value], "sync_mode": value}
        for number, value in enumerate(["", "*", "x" * 5000, "R * * * *", "0 0 31 4 *", "<b>", "a/b", "\n"])
    ]  # fmt: skip
    bench.home.mkdir(parents=True)
    catalog = {
        "version": 1,
        "fetched_at": "2026-01-01T00:00:00+00:00",
        "timezone": "Europe/Berlin",
        "entries": entries,
    }
    (bench.home / FILE_NAME).write_text(json.dumps(catalog))
    loaded = load(bench)
    assert loaded["schedules"] == []
    assert len(loaded["assets"]) >= 9


def test_a_broken_options_file_loads_and_triggers_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    from rally_pipeline.signalsmith.defs import build_defs

    bench.refresh()
    (bench.home / "syncs").mkdir()
    (bench.home / "syncs" / "signalsmith.yaml").write_text("syncs: [")
    built = build_defs(bench.settings)
    assert list(built.schedules or []) == []
    assert len(list(built.assets or [])) == 3
    assert "until it is corrected no sync is triggered" in caplog.text


def test_a_thousand_syncs_load_within_a_second_and_a_half_beyond_dagster(make_bench: MakeBench) -> None:
    """CPU seconds, best of three. Importing dagster takes 0.7 to 0.9 of them here; where it takes longer, the
    machine is busy or slow and the bound grows alike."""
    bench = make_bench(syncs=1000)
    bench.refresh()
    best = min((load(bench) for _ in range(3)), key=lambda loaded: loaded["cpu_seconds"])
    assert len(best["assets"]) == 1001
    assert len(best["schedules"]) > 800
    assert best["cpu_seconds"] < 1.5 * max(1.0, best["dagster_cpu_seconds"] / 0.9)
