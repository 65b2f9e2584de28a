"""The whole thing as a newcomer meets it: `rally-pipeline dev --sandbox`, its UI, a backfill, and its end."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.e2e.browser import CHROMIUM, open_page
from tests.e2e.pictures import take_pictures
from tests.e2e.services import Services, free_port, running_services

ENTITIES = ("contacts", "companies", "deals", "activities")
ASSETS = [
    *(("rally_extract", entity) for entity in ENTITIES),
    *(("rally", entity) for entity in ENTITIES),
    ("rally_feed", "changes"),
    ("sell_queue", "items"),
    ("signalsmith", "catalog"),
]
WINDOWS = 48
ALIVE_SECONDS = 300
"""Two minutes on an idle machine of two cores; tests share theirs."""

MATERIALIZATIONS = """
query($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    assetMaterializations(limit: 100) {
      partition
      metadataEntries { label ... on IntMetadataEntry { intValue } }
    }
  }
}"""
SENSORS = """
query($where: RepositorySelector!) {
  sensorsOrError(repositorySelector: $where) { ... on Sensors { results { name sensorState { status } } } }
  schedulesOrError(repositorySelector: $where) { ... on Schedules { results { name scheduleState { status } } } }
}"""
BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
PROGRESS = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
RUNS = "query($where: RunsFilter!) { runsOrError(filter: $where) { ... on Runs { results { status } } } }"
WHERE = {"repositoryName": "__repository__", "repositoryLocationName": "rally_pipeline"}


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    """One `dev` for all tests of this module, which take it through its life in order."""
    with running_services(tmp_path_factory.mktemp("dev"), "--sandbox", "--records", "600") as started:
        started.wait_until_up()
        yield started


def materializations(services: Services, *path: str) -> list[dict]:
    (node,) = services.ask(MATERIALIZATIONS, keys=[{"path": list(path)}])["assetNodes"]
    return node["assetMaterializations"]


def test_the_graph_is_alive_within_minutes_without_a_hand(services, record_property):
    states = services.ask(SENSORS, where=WHERE)
    assert {found["sensorState"]["status"] for found in states["sensorsOrError"]["results"]} == {"RUNNING"}
    assert {found["scheduleState"]["status"] for found in states["schedulesOrError"]["results"]} == {
        "RUNNING"
    }
    for path in ASSETS:
        services.wait_for(
            "/".join(path),
            lambda path=path: materializations(services, *path),
            seconds=ALIVE_SECONDS - services.age,
        )
    record_property("seconds_until_alive", round(services.age))


def launch_backfill(services: Services, windows: list[str]) -> str:
    params = {"assetSelection": [{"path": ["rally_feed", "changes"]}], "partitionNames": windows}
    launched = services.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return launched["backfillId"]


def backfill_runs(services: Services, backfill: str) -> list[str] | None:
    """States of the backfill's runs when all of them have ended; Dagster itself looks only every half minute."""
    where = {"tags": [{"key": "dagster/backfill", "value": backfill}]}
    runs = services.ask(RUNS, where=where)["runsOrError"]["results"]
    states = [run["status"] for run in runs]
    return states if states and set(states) <= {"SUCCESS", "FAILURE", "CANCELED"} else None


def backfill_state(services: Services, backfill: str) -> str | None:
    found = services.ask(PROGRESS, id=backfill)["partitionBackfillOrError"]["status"]
    return None if found in ("REQUESTED", "CANCELING") else found


def contents(services: Services, before: str) -> tuple[list[tuple], int]:
    """The log up to an instant, and how many rows it has."""
    with sqlite3.connect(services.home / "sandbox" / "warehouse.db") as connection:
        rows = connection.execute(
            "SELECT id, entity_type, entity_id, action, changed_at FROM rally_changes WHERE changed_at < ? ORDER BY 1",
            (before,),
        ).fetchall()
    return rows, len(rows)


def test_a_backfill_of_many_windows_completes_and_changes_nothing_the_second_time(services):
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    keys = [(hour - timedelta(hours=n)).strftime("%Y-%m-%d-%H:00") for n in range(WINDOWS, 0, -1)]
    until = (hour - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
    backfills = [launch_backfill(services, keys)]
    services.wait_for("the backfill", lambda: backfill_runs(services, backfills[0]), seconds=400)
    first, count = contents(services, until)
    events = [
        event for event in materializations(services, "rally_feed", "changes") if event["partition"] in keys
    ]
    assert {event["partition"] for event in events} == set(keys)
    backfills.append(launch_backfill(services, keys))
    services.wait_for("the second", lambda: backfill_runs(services, backfills[1]), seconds=400)
    again, _ = contents(services, until)
    assert again == first
    assert count == len({row[0] for row in first})
    second = [
        event for event in materializations(services, "rally_feed", "changes") if event["partition"] in keys
    ]
    recorded = {
        entry["intValue"]
        for event in second[:WINDOWS]
        for entry in event["metadataEntries"]
        if entry["label"] == "rally/recorded"
    }
    assert recorded <= {0, *range(30)}  # the last hour may still get late entries of the living source
    for launched in backfills:
        ended = services.wait_for("its end", lambda one=launched: backfill_state(services, one), seconds=400)
        assert ended == "COMPLETED_SUCCESS"


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_pages_show_the_graph_and_plots(services, tmp_path):
    folder = Path(os.environ.get("RALLY_PIPELINE_PICTURES", tmp_path))
    with open_page() as page:
        take_pictures(page, services.url, folder)
    assert {path.name for path in folder.glob("*.png")} >= {"asset-graph.png", "asset-plots.png"}


def test_the_command_line_works_beside_it(services):
    kept = dotenv_values(services.home / "sandbox" / "sandbox.env")
    done = services.command("status", **{name: value or "" for name, value in kept.items()})
    assert done.returncode == 0, done.stderr
    assert "rally_contacts" in done.stdout


def test_a_second_dev_on_the_same_home_is_refused(services):
    done = services.command("dev", "--sandbox", "--port", str(free_port()))
    assert done.returncode == 2
    assert "another `rally-pipeline dev` is using" in done.stderr


def test_sigterm_ends_every_process_and_leaves_no_run_open(services):
    assert services.survivors()
    assert services.stop(signal.SIGTERM, seconds=90) == 0
    assert services.survivors() == []
    with sqlite3.connect(services.home / "sandbox" / "dagster" / "history" / "runs.db") as connection:
        open_runs = connection.execute(
            "SELECT count(*) FROM runs WHERE status IN ('STARTED', 'STARTING', 'CANCELING')"
        ).fetchone()
    assert open_runs == (0,)


def test_services_end_when_the_command_is_killed(tmp_path):
    """Also runs that are under way, which would ask a sandbox that is gone until they give up."""
    with running_services(tmp_path, "--sandbox", "--records", "50") as services:
        services.wait_until_up()
        services.wait_for("a run", lambda: runs_under_way(services), seconds=120)
        services.stop(signal.SIGKILL)
        deadline = time.monotonic() + 90
        while services.survivors():
            assert time.monotonic() < deadline, "\n".join(services.survivors())
            time.sleep(0.5)


def runs_under_way(services: Services) -> list[dict]:
    return services.ask(RUNS, where={"statuses": ["STARTED"]})["runsOrError"]["results"]
