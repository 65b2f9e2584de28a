"""Sensors: what changed upstream starts a sync once, what ran elsewhere is shown once, what changed remotely is
fetched."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from rally_pipeline.signalsmith.defs.names import NOT_BEFORE_TAG, REMOTE_RUN_TAG
from rally_pipeline.signalsmith.defs.resource import SignalSmithResource
from rally_pipeline.signalsmith.triggers import Position, Sight, Watch, rows_changed
from tests.signalsmith.location import Location

MakeLocation = Callable[..., Location]
CONTACTS, DEALS = "contacts_to_newsletter", "deals_to_finance"
RUNS, CATALOG, TRIGGER = "signalsmith_runs_sensor", "signalsmith_catalog_sensor", "sync_trigger_sensor"
UPSTREAM = dg.AssetKey(["rally", "contacts"])


# Runs that were started elsewhere


def report(location: Location) -> Any:
    """One tick of the runs sensor, its events stored."""
    result = location.sense(RUNS)
    location.store(result)
    return result


def test_a_run_started_elsewhere_becomes_one_materialisation(location: Location) -> None:
    bench = location.bench
    report(location)
    run_id = bench.control("start_run", sync=bench.sync_id(0), triggered_by="somebody")
    bench.clock.advance(120)
    for _ in range(3):
        report(location)
    (found,) = location.materializations(CONTACTS)
    assert found.tags is not None
    assert found.tags[REMOTE_RUN_TAG] == run_id
    assert found.metadata["signalsmith/origin"].value == "elsewhere"
    assert found.metadata["signalsmith/triggered_by"].value == "somebody"
    assert found.metadata["signalsmith/rows_synced"].value > 0


def test_hours_of_scheduled_runs_are_shown_run_by_run(make_location: MakeLocation) -> None:
    location = make_location()
    bench = location.bench
    report(location)
    for _ in range(6):
        bench.clock.advance(3600)
        report(location)
    bench.clock.advance(600)
    report(location)
    for number, slug in ((0, CONTACTS), (1, DEALS)):
        shown = [found.tags[REMOTE_RUN_TAG] for found in location.materializations(slug) if found.tags]
        assert sorted(shown) == sorted(bench.run_ids(bench.sync_id(number)))


def test_a_tick_that_dies_after_its_events_were_stored_repeats_nothing(location: Location) -> None:
    """Dagster stores the events first and the cursor last; the event log is the proof."""
    bench = location.bench
    bench.control("start_run", sync=bench.sync_id(0))
    bench.clock.advance(120)
    first = location.sense(RUNS)
    lost = location.sense(RUNS)  # its events never arrived: the same again
    assert [type(event) for event in first.asset_events] == [type(event) for event in lost.asset_events]
    location.store(lost)
    assert location.sense(RUNS).asset_events == []
    assert len(location.materializations(CONTACTS)) == 1


def test_a_run_that_dagster_followed_is_not_shown_twice(location: Location) -> None:
    assert location.run(f"signalsmith_{CONTACTS}").success
    for _ in range(2):
        report(location)
    assert len(location.materializations(CONTACTS)) == 1


def test_a_run_that_dagster_still_follows_is_left_to_it(location: Location) -> None:
    bench = location.bench
    follower = create_run_for_test(
        location.instance, job_name=f"signalsmith_{CONTACTS}", status=dg.DagsterRunStatus.STARTED
    )
    bench.run(bench.sync_id(0), "run:x", dagster_run_id=follower.run_id)
    assert report(location).asset_events == []
    location.instance.report_run_canceled(follower)
    assert len(report(location).asset_events) == 2  # the materialisation and its check
    report(location)
    assert len(location.materializations(CONTACTS)) == 1


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_failed_run_is_an_observation_and_no_materialisation(location: Location, outcome: str) -> None:
    bench = location.bench
    bench.control("plan_run", sync=bench.sync_id(0), outcome=outcome, error="quota exceeded")
    bench.control("start_run", sync=bench.sync_id(0))
    bench.clock.advance(120)
    for _ in range(2):
        report(location)
    assert location.materializations(CONTACTS) == []
    (found,) = location.observations(CONTACTS)
    assert found.metadata["signalsmith/error"].value == "quota exceeded"


def test_a_failed_run_that_a_dagster_run_reported_needs_no_observation(location: Location) -> None:
    bench = location.bench
    bench.control("plan_run", sync=bench.sync_id(0), outcome="failed", error="x")
    assert not location.run(f"signalsmith_{CONTACTS}").success
    report(location)
    assert location.observations(CONTACTS) == []


def test_failed_rows_of_a_run_elsewhere_reach_the_check(location: Location) -> None:
    bench = location.bench
    bench.control("plan_run", sync=bench.sync_id(0), rows=100, failed_rows=50)
    bench.control("start_run", sync=bench.sync_id(0))
    bench.clock.advance(120)
    (_, check) = location.sense(RUNS).asset_events
    assert (check.check_name, check.passed, check.severity.value) == ("rows_accepted", False, "ERROR")


def test_one_list_call_a_tick_whatever_the_number_of_syncs(make_location: MakeLocation) -> None:
    location = make_location(syncs=300, switches={"scheduler": False})
    location.sense(RUNS)
    before = len(location.bench.requests())
    for _ in range(5):
        location.sense(RUNS)
    assert [path for _, path in location.bench.requests()[before:]] == ["/syncs"] * 5


def test_only_syncs_whose_last_run_moved_cost_a_further_request(make_location: MakeLocation) -> None:
    location = make_location(syncs=100, switches={"scheduler": False})
    bench = location.bench
    for number in (3, 4):
        bench.control("start_run", sync=bench.sync_id(number))
    bench.clock.advance(120)
    before = len(bench.requests())
    report(location)
    assert len(bench.requests()) - before == 3


def test_many_new_runs_are_spread_over_ticks_and_none_is_lost(make_location: MakeLocation) -> None:
    location = make_location(syncs=80, switches={"scheduler": False})
    bench = location.bench
    for number in range(80):
        bench.control("start_run", sync=bench.sync_id(number))
    bench.clock.advance(120)
    spent, ticks = [], 0
    while ticks < 6:
        before = len(bench.requests())
        report(location)
        spent.append(len(bench.requests()) - before)
        ticks += 1
    assert max(spent) <= 31
    graph = location.definitions.resolve_asset_graph()
    slugs = [key.path[1] for key in graph.get_all_asset_keys() if key.path[0] == "signalsmith"]
    assert sum(len(location.materializations(slug)) for slug in slugs if slug != "catalog") == 80


def test_many_runs_under_way_cost_one_look_at_the_health(make_location: MakeLocation) -> None:
    location = make_location(syncs=20, switches={"scheduler": False, "run_seconds": 600.0})
    bench = location.bench
    for number in range(20):
        bench.control("start_run", sync=bench.sync_id(number))
    bench.clock.advance(10)
    location.sense(RUNS)
    before = len(bench.requests())
    location.sense(RUNS)
    paths = [path for _, path in bench.requests()[before:]]
    assert paths == ["/syncs", "/insights/sync-health"]


def test_a_remote_that_is_down_is_a_skip_with_the_reason(location: Location) -> None:
    location.bench.transport.refusing = True
    assert "tried again at the next tick" in location.sense(RUNS).skip_message
    location.bench.transport.refusing = False
    location.bench.sandbox.faults.add("unauthorized", times=None)
    with pytest.raises(dg.Failure, match="SIGNALSMITH_API_TOKEN"):
        location.sense(RUNS)


# The catalog


def test_the_catalog_sensor_asks_only_when_something_but_runs_changed(make_location: MakeLocation) -> None:
    location = make_location(start=datetime.now(UTC))
    bench = location.bench
    bench.clock.advance(7200)
    assert "nothing changed (1 request)" in location.sense(CATALOG).skip_message
    bench.control("edit_sync", sync=bench.sync_id(0), fields={"schedule": "0 5 * * *"})
    first = location.sense(CATALOG)
    assert len(first.run_requests) == 1
    again = location.sense(CATALOG, first.cursor)
    assert "asked for already" in again.skip_message
    assert location.run("signalsmith_catalog").success
    assert "nothing changed" in location.sense(CATALOG, first.cursor).skip_message
    location.reload()
    schedule = location.repository.get_schedule_def(f"signalsmith_{CONTACTS}_schedule")
    assert schedule.cron_schedule == "0 5 * * *"


def test_a_missing_and_an_old_catalog_are_fetched(make_location: MakeLocation) -> None:
    location = make_location(start=datetime.now(UTC) - timedelta(days=2))
    assert len(location.sense(CATALOG).run_requests) == 1  # it is two days old
    for path in location.bench.home.glob("signalsmith_catalog*"):
        path.unlink()
    assert len(location.sense(CATALOG).run_requests) == 1


# Upstream changes


class Times:
    """What the trigger sensor takes for the present."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    found = Times()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return found.at

    monkeypatch.setattr(import_module("rally_pipeline.signalsmith.defs.trigger_sensor"), "datetime", Clock)
    return found


def materialize(location: Location, key: dg.AssetKey = UPSTREAM, **numbers: int) -> None:
    metadata = {f"rally/{name}": value for name, value in numbers.items()}
    location.instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))


def table(location: Location, rows: int, synced_at: str) -> None:
    """The upstream table as a run left it."""
    from sqlalchemy import text

    with location.bench.warehouse.transaction("test") as transaction:
        transaction.execute(text("CREATE TABLE IF NOT EXISTS rally_contacts (id TEXT, _synced_at TEXT)"))
        transaction.execute(text("DELETE FROM rally_contacts"))
        for number in range(rows):
            transaction.execute(text(f"INSERT INTO rally_contacts VALUES ('{number}', '{synced_at}')"))


def test_a_sync_starts_once_when_its_upstream_rows_changed(location: Location, times: Times) -> None:
    table(location, 3, "2026-01-01T00:00:00.000000Z")
    materialize(location)
    first = location.sense(TRIGGER)
    assert "no upstream rows have changed" in first.skip_message  # the state at the start is taken as given
    table(location, 4, "2026-01-01T01:00:00.000000Z")
    materialize(location)
    waiting = location.sense(TRIGGER, first.cursor)
    assert "for more changes" in waiting.skip_message
    times.at += timedelta(seconds=120)
    due = location.sense(TRIGGER, waiting.cursor)
    (request,) = due.run_requests
    assert request.job_name == f"signalsmith_{CONTACTS}"
    assert NOT_BEFORE_TAG in request.tags
    after = location.sense(TRIGGER, due.cursor)
    assert after.run_requests == []
    assert location.run(request.job_name, request.tags).success
    assert len(location.bench.started(location.bench.sync_id(0))) == 1


def test_a_run_upstream_that_wrote_nothing_starts_nothing(location: Location, times: Times) -> None:
    table(location, 3, "2026-01-01T00:00:00.000000Z")
    materialize(location)
    cursor = location.sense(TRIGGER).cursor
    for _ in range(3):
        materialize(location, inserted=5)  # whatever its counts say, the table is as it was
        times.at += timedelta(seconds=600)
        result = location.sense(TRIGGER, cursor)
        assert result.run_requests == []
        cursor = result.cursor


def test_without_a_table_the_counts_of_the_materialisation_decide(location: Location, times: Times) -> None:
    materialize(location, inserted=0)
    cursor = location.sense(TRIGGER).cursor
    materialize(location, inserted=0, updated=0, deleted=0)
    times.at += timedelta(seconds=600)
    quiet = location.sense(TRIGGER, cursor)
    assert quiet.run_requests == []
    materialize(location, inserted=0, updated=2)
    materialize(location, inserted=0, updated=0)
    times.at += timedelta(seconds=600)
    assert len(location.sense(TRIGGER, quiet.cursor).run_requests) == 1


def test_a_burst_of_changes_becomes_one_run_and_cannot_put_it_off_for_ever() -> None:
    """A change every 20 seconds, a debounce of 60: a run every five minutes, none in between."""
    start = datetime(2026, 3, 2, tzinfo=UTC)
    watch, runs = Watch.begin({"a": Sight(1, start, "0")}, None), []
    for number in range(1, 91):
        now = start + timedelta(seconds=20 * number)
        watch = watch.see({"a": Sight(1 + number, now, str(number))})
        if watch.due(now, 60):
            runs.append(20 * number)
            watch = watch.started()
    assert runs == [320, 640, 960, 1280, 1600]
    quiet = start + timedelta(seconds=1860)
    assert not watch.due(quiet - timedelta(seconds=1), 60)
    assert watch.due(quiet, 60)


def test_a_sync_whose_run_is_under_way_waits_for_its_end(location: Location, times: Times) -> None:
    materialize(location)
    cursor = location.sense(TRIGGER).cursor
    materialize(location, updated=1)
    times.at += timedelta(seconds=600)
    busy = create_run_for_test(
        location.instance, job_name=f"signalsmith_{CONTACTS}", status=dg.DagsterRunStatus.STARTED
    )
    held = location.sense(TRIGGER, cursor)
    assert "another run follows it" in held.skip_message
    location.instance.report_run_canceled(busy)
    assert len(location.sense(TRIGGER, held.cursor).run_requests) == 1


def test_a_lost_position_costs_no_change_that_came_after_the_last_run(
    location: Location, times: Times
) -> None:
    materialize(location)
    location.instance.report_runless_asset_event(dg.AssetMaterialization(["signalsmith", CONTACTS]))
    materialize(location, updated=1)
    times.at += timedelta(seconds=600)
    assert len(location.sense(TRIGGER, "garbage").run_requests) == 1


def test_a_paused_or_observed_sync_is_not_started_and_says_why(location: Location) -> None:
    bench = location.bench
    bench.control("edit_sync", sync=bench.sync_id(0), fields={"status": "paused"})
    bench.refresh()
    location.reload()
    assert "paused" in location.sense(TRIGGER).skip_message
    bench.control("edit_sync", sync=bench.sync_id(0), fields={"status": "active"})
    (bench.home / "syncs").mkdir()
    (bench.home / "syncs" / "signalsmith.yaml").write_text(
        "syncs: {Contacts to newsletter: {ownership: observe}}"
    )
    bench.refresh()
    location.reload()
    assert "observed only" in location.sense(TRIGGER).skip_message


def test_upstream_may_be_declared_in_the_file(location: Location) -> None:
    (location.bench.home / "syncs").mkdir()
    (location.bench.home / "syncs" / "signalsmith.yaml").write_text(
        "syncs: {Deals to finance: {upstream: [rally/deals, my/own/table], debounce_seconds: 0}}"
    )
    location.reload()
    own = dg.AssetKey(["my", "own", "table"])
    graph = location.definitions.resolve_asset_graph()
    assert own in graph.get(dg.AssetKey(["signalsmith", DEALS])).parent_keys
    materialize(location, own)
    cursor = location.sense(TRIGGER).cursor
    materialize(location, own)
    (request,) = location.sense(TRIGGER, cursor).run_requests
    assert request.job_name == f"signalsmith_{DEALS}"


@pytest.mark.parametrize(
    "text", [None, "", "x", "[]", "{}", '{"version": 9}', '{"version": 1, "watches": {"a": 7}}', "[" * 5000]
)
def test_a_damaged_position_is_an_empty_one(text: str | None) -> None:
    assert Position.read(text) == Position()


def test_a_position_survives_its_own_round_trip() -> None:
    at = datetime(2026, 3, 2, tzinfo=UTC)
    watch = Watch.begin({"a/b": Sight(3, at, "5|x")}, at - timedelta(hours=1))
    assert watch.is_pending
    assert Position.read(Position({"id-1": watch}).text()).watches == {"id-1": watch}
    assert json.loads(Position().text())["version"] == 1


@pytest.mark.parametrize(
    ("numbers", "changed"),
    [
        ({}, True),
        ({"rally/pages": 3}, True),
        ({"rally/inserted": 0, "rally/updated": 0}, False),
        ({"rally/inserted": 0, "rally/run_recorded": 4}, True),
        ({"x/deleted": 1}, True),
    ],
)
def test_counts_that_say_nothing_count_as_a_change(numbers: dict[str, float], changed: bool) -> None:
    assert rows_changed(numbers) is changed


def test_a_tick_does_not_wait_for_a_rate_limit_longer_than_dagster_waits_for_the_tick() -> None:
    resource = SignalSmithResource(
        api_url="http://127.0.0.1:9/api/v1", api_token="ssk_test", workspace_id="w", timezone=None
    )
    with resource.client(tick=True) as tick, resource.client() as run:
        assert tick.http._policy.total_seconds <= 30
        assert run.http._policy.total_seconds == 1800
