"""Rally in Dagster: real runs against the sandbox over loopback, into a real warehouse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from sqlalchemy import delete, select, update

from rally_pipeline.orchestration.cursor import RequestCursor
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.windows import HOUR, hour_of, window_key
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.connection import open_mirror
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.tables import ENTITY_TABLES, changes
from rally_pipeline.rooms import build
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from rally_pipeline.settings import Settings, load_settings
from rally_pipeline.warehouse import Warehouse

OVERLAP = 30
MOST_CHANGES = 2_000
"""Of a source that does not rest: a machine so slow that no read would catch up with it is given a chance."""
FEED = dg.AssetKey(["rally_feed", "changes"])


class Office:
    """A tenant in the sandbox, served on loopback, and Dagster's definitions that point at it."""

    def __init__(self, server: SandboxServer, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.server = server
        self.sandbox = server.sandbox
        self.rally = server.sandbox.rally
        self.settings = settings
        self.instance = instance
        self.definitions = build(settings)

    def run(
        self, job: str, ops: dict[str, object] | None = None, **options: Any
    ) -> dg.ExecuteInProcessResult:
        """Execute a job; a failing step fails the run, not the test."""
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            run_config={"ops": ops or {}, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            **options,
        )

    def fill(self) -> None:
        """A full extract by the engine alone, which is quicker than a run."""
        with open_mirror(self.settings) as mirror:
            for entity in Entity:
                mirror.extract(entity)

    def requests(self) -> list[str]:
        """Paths below the API's base, in order, since the log was cleared."""
        return [entry.path.removeprefix("/rally/api/v1") for entry in self.sandbox.log]

    def differences(self) -> int:
        with open_mirror(self.settings) as mirror:
            return sum(mirror.verify(entity).differences for entity in Entity)

    def tick(self, cursor: str | None = None) -> dg.SensorResult:
        """Evaluate the change sensor once."""
        sensor = self.definitions.resolve_sensor_def("rally_changes_sensor")
        resources = self.definitions.resources or {}
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            resources={"rally": resources["rally"], "warehouse": resources["warehouse"]},
        ) as context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def close(self, at: datetime) -> list[dg.RunRequest] | str:
        """Evaluate the closing schedule: its run requests, or why it skips."""
        schedule = self.definitions.resolve_schedule_def("rally_feed_close")
        resources = self.definitions.resources or {}
        with dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=at,
            resources={"rally": resources["rally"], "warehouse": resources["warehouse"]},
        ) as context:
            found = schedule.evaluate_tick(context)
        return found.skip_message or list(found.run_requests or [])


def open_office(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    hours_ago: int = 0,
    storage: Callable[[], AbstractContextManager[dg.DagsterInstance]] = dg.DagsterInstance.ephemeral,
) -> Iterator[Office]:
    begin = datetime.now(UTC) - timedelta(hours=hours_ago)
    if hours_ago > 0:
        begin = begin.replace(minute=20)  # the middle of an hour, whenever the test runs
    clock = SandboxClock.running(begin)
    sandbox = Sandbox(records=120, clock=clock, apis=["rally"])
    with SandboxServer(sandbox) as server, storage() as instance:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///{tmp_path / 'warehouse.db'}")
        monkeypatch.setenv("RALLY_FEED_OVERLAP_SECONDS", str(OVERLAP))
        monkeypatch.setenv("RALLY_STALENESS_SECONDS", "0")
        start = hour_of(datetime.now(UTC)) - timedelta(days=2)
        monkeypatch.setenv("RALLY_FEED_START", window_key(start))
        yield Office(server, load_settings(rally_pipeline_home=tmp_path), instance)


@pytest.fixture
def office(tmp_path, monkeypatch):
    """The source's clock is the present."""
    yield from open_office(tmp_path, monkeypatch)


@pytest.fixture
def yesterday(tmp_path, monkeypatch):
    """The source's clock begins five hours ago, so that whole hours can pass."""
    yield from open_office(tmp_path, monkeypatch, hours_ago=5)


@pytest.fixture
def ahead_in_files(tmp_path, monkeypatch):
    """The source's clock is three hours ahead of this machine's; the instance is one for a schedule as well."""
    (tmp_path / "dagster").mkdir()
    storage = partial(dg.DagsterInstance.local_temp, str(tmp_path / "dagster"))
    yield from open_office(tmp_path, monkeypatch, hours_ago=-3, storage=storage)


@pytest.fixture
def yesterday_in_files(tmp_path, monkeypatch):
    """The same with an instance that a schedule can be evaluated in."""
    # A schedule wants an instance with a reference.
    (tmp_path / "dagster").mkdir()
    storage = partial(dg.DagsterInstance.local_temp, str(tmp_path / "dagster"))
    yield from open_office(tmp_path, monkeypatch, hours_ago=5, storage=storage)


def running_hour() -> str:
    return window_key(hour_of(datetime.now(UTC)))


def materialization(office: Office, *path: str) -> dict[str, object]:
    event = office.instance.get_latest_materialization_event(dg.AssetKey(list(path)))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def failed_steps(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """The description of each failed step, and nothing else of it."""
    failures = {}
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data.user_failure_data
            failures[event.step_key or ""] = data.description if data else ""
    return failures


# -- assets -------------------------------------------------------------------------------------------------------


def test_a_full_extract_fills_the_tables_and_says_what_it_did(office):
    result = office.run("rally_full_extract")
    assert result.success
    assert office.differences() == 0
    found = materialization(office, "rally", "contacts")
    assert found["dagster/row_count"] == office.rally.counts()["contacts"]
    assert found["dagster/table_name"] == "rally_contacts"
    assert "email" in [column.name for column in found["dagster/column_schema"].columns]
    for name in ("inserted", "updated", "deleted", "requests", "waited_seconds", "lag_seconds", "open_marks"):
        assert isinstance(found[f"rally/{name}"], int | float), name
    assert (
        materialization(office, "rally_extract", "contacts")["rally/inserted"] == found["dagster/row_count"]
    )
    evaluations = result.get_asset_check_evaluations()
    assert len(evaluations) == 36
    assert all(evaluation.passed for evaluation in evaluations)


def test_one_client_serves_the_whole_run(office):
    office.run("rally_full_extract")
    asked_for_the_time = [entry.no for entry in office.sandbox.log if entry.path.endswith("/sync/changes")]
    assert len(asked_for_the_time) == 2  # the time of two answers, and not again for the next entity


@pytest.mark.fault("P7")
def test_the_feed_brings_the_mirror_up_to_date(office):
    office.fill()
    office.rally.mutate(30)
    result = office.run("rally_incremental", partition_key=running_hour())
    assert result.success
    assert office.differences() == 0
    found = materialization(office, "rally_feed", "changes")
    assert found["rally/recorded"] == 30
    assert found["dagster/partition_row_count"] == 30
    again = office.run("rally_incremental", partition_key=running_hour())
    assert again.success
    found = materialization(office, "rally_feed", "changes")
    assert (found["rally/recorded"], found["dagster/partition_row_count"]) == (0, 30)
    assert materialization(office, "rally", "deals")["rally/marks"] == 0


def test_the_running_hour_is_not_read_from_its_beginning_again(office):
    office.fill()
    office.rally.mutate(30)
    office.run("rally_incremental", partition_key=running_hour())
    office.sandbox.log.clear()
    office.run("rally_incremental", partition_key=running_hour())
    since = [datetime.fromisoformat(entry.query["since"][0]) for entry in office.sandbox.log]
    assert since
    with open_mirror(office.settings) as mirror:
        base = mirror.coverage().base
    assert min(moment for moment in since if moment.year > 1970) >= base - timedelta(seconds=1)


def test_a_range_is_one_run_with_a_count_for_each_window(yesterday):
    office = yesterday
    office.fill()
    first = hour_of(office.sandbox.clock.now())
    for _ in range(3):
        office.sandbox.clock.advance(3600)
        office.rally.mutate(5, tie_share=1.0)
    office.sandbox.clock.advance(1800)
    keys = [window_key(first + n * HOUR) for n in range(4)]
    tags = {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
    assert office.run("rally_incremental", tags=tags).success
    assert office.instance.get_materialized_partitions(FEED) == set(keys)
    counts = partition_counts(office)
    assert counts == dict(zip(keys, (0, 5, 5, 5), strict=True))
    again = office.run("rally_incremental", tags=tags)
    assert again.success
    assert materialization(office, "rally_feed", "changes")["rally/recorded"] == 0
    assert partition_counts(office) == counts
    assert office.differences() == 0


def test_each_window_of_a_run_shows_its_own_numbers_and_they_add_up(yesterday):
    office = yesterday
    office.fill()
    first = hour_of(office.sandbox.clock.now())
    for changes_of_the_hour in (5, 0, 9):
        office.sandbox.clock.advance(3600)
        office.rally.mutate(changes_of_the_hour)
    office.sandbox.clock.advance(1800)
    keys = [window_key(first + n * HOUR) for n in range(4)]
    tags = {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
    office.sandbox.log.clear()
    assert office.run("rally_incremental", tags=tags).success
    asked = sum(path == "/sync/changes" for path in office.requests())

    windows = windows_of_the_last_run(office, len(keys))
    assert list(windows) == keys
    assert [windows[key]["rally/recorded"] for key in keys] == [0, 5, 0, 9]
    assert [windows[key]["dagster/partition_row_count"] for key in keys] == [0, 5, 0, 9]
    quiet = windows[keys[2]]
    through = quiet.pop("rally/synced_through")
    assert {window["rally/synced_through"] for window in windows.values() if window is not quiet} == {through}
    assert {name: value for name, value in quiet.items() if name.startswith("rally/")} == {
        "rally/recorded": 0,
        "rally/inserted": 0,
        "rally/updated": 0,
        "rally/deleted": 0,
        "rally/known": 0,
        "rally/marked": 0,
        "rally/late_entries": 0,
        "rally/late_seconds": 0.0,
        "rally/requests": 0,
    }
    busy = windows[keys[3]]
    assert hour_of(datetime.fromtimestamp(busy["rally/first_entry"], UTC)) == first + 3 * HOUR
    assert busy["rally/first_entry"] <= busy["rally/last_entry"]
    totals = windows[keys[-1]]
    assert (totals["rally/run_recorded"], totals["rally/run_windows"], totals["rally/run_requests"]) == (
        14,
        4,
        asked,
    )
    assert_windows_add_up(windows)

    assert office.run("rally_incremental", tags=tags).success
    windows = windows_of_the_last_run(office, len(keys))
    assert [windows[key]["rally/recorded"] for key in keys] == [0, 0, 0, 0]
    assert [windows[key]["rally/known"] for key in keys] == [0, 5, 0, 9]
    assert_windows_add_up(windows)


def test_entries_of_another_hour_are_told_apart_from_the_window_that_was_asked_for(yesterday):
    office = yesterday
    office.fill()
    start = hour_of(office.sandbox.clock.now()) + HOUR
    office.sandbox.clock.set(start - timedelta(seconds=5))
    office.rally.mutate(4)
    office.sandbox.clock.set(start + timedelta(seconds=5))
    office.rally.mutate(3)
    assert office.run("rally_incremental", partition_key=window_key(start)).success
    windows = windows_of_the_last_run(office, 1)
    (shown,) = windows.values()
    assert (shown["rally/recorded"], shown["rally/run_recorded"]) == (3, 7)
    assert shown["rally/run_recorded_elsewhere"] == 4
    assert_windows_add_up(windows)


def windows_of_the_last_run(office: Office, count: int) -> dict[str, dict[str, Any]]:
    """Metadata by partition, the oldest window first; totals of the run may stand with the last one only."""
    records = office.instance.fetch_materializations(FEED, limit=count).records
    found = {}
    for record in records:
        event = record.asset_materialization
        assert event is not None
        assert event.partition is not None
        found[event.partition] = {name: value.value for name, value in event.metadata.items()}
    last = max(found)
    shared = {"dagster/table_name", "dagster/column_schema", "dagster/partition_row_count"}
    for key, metadata in found.items():
        totals = {name for name in metadata if name.startswith(("rally/run_", "rally/lag_", "dagster/"))}
        assert (totals > shared) == (key == last)
    return dict(sorted(found.items()))


def assert_windows_add_up(windows: dict[str, dict[str, Any]]) -> None:
    totals = windows[max(windows)]
    for name in ("recorded", "marked", "late_entries"):
        inside = sum(window[f"rally/{name}"] for window in windows.values())
        assert inside + totals[f"rally/run_{name}_elsewhere"] == totals[f"rally/run_{name}"]
    assert sum(window["rally/requests"] for window in windows.values()) == totals["rally/run_requests"]
    assert (
        max(window["rally/late_seconds"] for window in windows.values()) <= totals["rally/run_late_seconds"]
    )
    for window in windows.values():
        actions = sum(window[f"rally/{action}"] for action in ("inserted", "updated", "deleted"))
        assert window["rally/recorded"] == actions
        assert window["rally/recorded"] + window["rally/known"] == window["dagster/partition_row_count"]
        assert {"rally/first_entry", "rally/last_entry"} <= window.keys() or not window[
            "dagster/partition_row_count"
        ]


def partition_counts(office: Office) -> dict[str, int]:
    found = {}
    for record in office.instance.fetch_materializations(FEED, limit=50).records:
        event = record.asset_materialization
        assert event is not None
        assert event.partition is not None
        found.setdefault(event.partition, event.metadata["dagster/partition_row_count"].value)
    return dict(sorted(found.items()))


def test_one_bad_entity_does_not_stop_the_others(office):
    office.sandbox.faults.add("forbidden", path="/rally/api/v1/deals*", times=None)
    result = office.run("rally_full_extract")
    assert not result.success
    assert set(failed_steps(result)) == {"rally_extract__deals"}
    done = {key.path[-1] for key in office.instance.all_asset_keys() if key.path[0] == "rally"}
    assert {"contacts", "companies", "activities"} <= done
    with open_mirror(office.settings) as mirror:
        assert mirror.verify(Entity.CONTACTS).differences == 0


def test_a_wrong_key_fails_at_the_first_attempt_and_says_what_to_do(office, monkeypatch):
    monkeypatch.setenv("RALLY_API_KEY", "rk_live_canary_4711")
    result = office.run("rally_full_extract")
    failures = failed_steps(result)
    assert len(failures) == 4
    assert all("RALLY_API_KEY" in line for line in failures.values())
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    stored = "".join(str(event) for event in office.instance.all_logs(result.run_id))
    assert "canary" not in stored


def test_a_cancelled_run_stops_at_once_and_keeps_what_it_has(office, monkeypatch):
    read = RallyClient.list_page
    pages = []

    def cancel_at_the_second_page(self, *arguments, **options):
        pages.append(arguments)
        if len(pages) == 2:
            raise DagsterExecutionInterruptedError
        return read(self, *arguments, **options)

    monkeypatch.setattr(RallyClient, "list_page", cancel_at_the_second_page)
    with suppress(DagsterExecutionInterruptedError):
        office.run("rally_full_extract")
    (run,) = office.instance.get_runs()
    events = [entry.dagster_event_type for entry in office.instance.all_logs(run.run_id)]
    assert run.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)
    assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in events
    assert len(pages) == 2
    monkeypatch.undo()


def test_a_feed_that_no_longer_reaches_back_is_red_not_green(office):
    office.fill()
    office.rally.clear_feed()
    office.rally.restart_feed_ids(1)
    office.rally.mutate(3)
    with open_mirror(office.settings) as mirror:
        before = mirror.coverage()
    result = office.run("rally_incremental", partition_key=running_hour())
    with open_mirror(office.settings) as mirror:
        required = mirror.snapshot_required(Entity.CONTACTS)
    if required:
        assert "full extract" in failed_steps(result)["rally_feed__changes"]
    else:
        assert before.problem is None


def test_a_record_that_cannot_be_stored_warns_and_is_named(office):
    victim = office.rally.ids("deals")[0]
    office.rally.distort("deals", victim, raw={"id": "7e999"})
    result = office.run("rally_full_extract")
    assert result.success
    found = materialization(office, "rally_extract", "deals")
    assert found["rally/quarantined_now"] >= 1
    assert found["rally/rejects"]
    warned = {
        (evaluation.asset_key.path[0], evaluation.check_name)
        for evaluation in result.get_asset_check_evaluations()
        if not evaluation.passed
    }
    assert ("rally_extract", "nothing_newly_quarantined") in warned


@pytest.mark.security("29")
def test_hostile_text_of_the_source_is_never_markdown(office):
    hostile = "<img src=x onerror=alert(1)>[x](https://evil.example)"
    office.rally.create(
        "companies", {"name": hostile, "domain": "hostile.example", "notes": hostile, "industry": hostile}
    )
    result = office.run("rally_full_extract")
    for event in office.instance.all_logs(result.run_id):
        materialized = event.dagster_event and event.dagster_event.is_step_materialization
        if materialized:
            values = event.dagster_event.materialization.metadata.values()
            assert not [value for value in values if isinstance(value, dg.MarkdownMetadataValue)]


# -- reconcile ----------------------------------------------------------------------------------------------------


def test_reconcile_repairs_what_differs_and_counts_it(office):
    office.fill()
    with open_mirror(office.settings) as mirror, mirror.warehouse.transaction("test") as transaction:
        table = ENTITY_TABLES[Entity.DEALS]
        gone = transaction.rows(select(table.c.id).limit(3))
        transaction.execute(delete(table).where(table.c.id.in_([row[0] for row in gone])))
    strict = {f"reconcile_{entity.value}": {"config": {"heal": False}} for entity in Entity}
    refused = office.run("reconcile", ops=strict)
    assert failed_steps(refused) == {
        "reconcile_deals": "rally_deals: 3 missing, 0 extra, 0 stale, 0 repaired"
    }
    assert office.run("reconcile").success
    assert office.differences() == 0
    observed = office.instance.fetch_observations(dg.AssetKey(["rally", "deals"]), limit=1).records[0]
    assert observed.event_log_entry.dagster_event.asset_observation_data.asset_observation.metadata[
        "rally/repaired"
    ] == dg.MetadataValue.int(3)


def repairs_check(office) -> dg.AssetCheckEvaluation:
    """What the comparison itself last said of the deals' check."""
    key = dg.AssetCheckKey(dg.AssetKey(["rally", "deals"]), "reconcile_found_nothing")
    (record,) = office.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    return record.event.dagster_event.event_specific_data


def test_reconcile_tells_its_check_at_once(office):
    office.fill()
    with open_mirror(office.settings) as mirror, mirror.warehouse.transaction("test") as transaction:
        transaction.execute(update(ENTITY_TABLES[Entity.DEALS]).values(currency="???"))
    office.run("reconcile")
    found = repairs_check(office)
    assert not found.passed
    assert found.metadata["reconcile_repairs"].value == office.rally.counts()["deals"]
    assert found.metadata["reconcile_left"].value == 0
    office.run("reconcile")
    assert repairs_check(office).passed


@pytest.mark.parametrize("heal", [True, False])
def test_reconcile_beside_a_source_that_never_rests_is_green(office, heal):
    office.fill()
    office.rally.switch(max_limit=5)
    kinds = {"update": 3.0, "insert": 1.0, "delete": 1.0}
    rested = threading.Event()

    def live() -> None:
        for _ in range(MOST_CHANGES):
            if rested.wait(0.002):
                break
            office.rally.mutate(1, kinds)

    source = threading.Thread(target=live)
    source.start()
    try:
        ops = {f"reconcile_{entity.value}": {"config": {"heal": heal}} for entity in Entity}
        result = office.run("reconcile", ops=ops)
    finally:
        rested.set()
        source.join()
    assert failed_steps(result) == {}
    assert repairs_check(office).passed
    observed = office.instance.fetch_observations(dg.AssetKey(["rally", "deals"]), limit=1).records[0]
    counts = observed.event_log_entry.dagster_event.asset_observation_data.asset_observation.metadata
    assert (counts["rally/repaired"].value, counts["rally/left"].value) == (0, 0)


def test_reconcile_before_any_full_extract_says_what_to_do(office):
    failures = failed_steps(office.run("reconcile"))
    assert failures["reconcile_deals"].endswith("run `rally-pipeline sync rally` first")


def daily(office) -> list[dg.RunRequest] | str:
    """Evaluate the daily schedule at three o'clock: its run requests, or why it skips."""
    schedule = office.definitions.resolve_schedule_def("reconcile_schedule")
    resources = office.definitions.resources or {}
    with dg.build_schedule_context(
        instance=office.instance,
        scheduled_execution_time=datetime(2026, 3, 3, 3, 0, tzinfo=UTC),
        resources={"rally": resources["rally"], "warehouse": resources["warehouse"]},
    ) as context:
        found = schedule.evaluate_tick(context)
    return found.skip_message or list(found.run_requests or [])


def test_the_daily_comparison_is_off_and_at_three(office):
    schedule = office.definitions.resolve_schedule_def("reconcile_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", "UTC")
    assert schedule.job_name == "reconcile"
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED


def test_the_daily_comparison_waits_for_the_first_full_extract_and_for_the_one_under_way(yesterday_in_files):
    office = yesterday_in_files
    assert "before every entity has been read in full once" in daily(office)
    assert office.requests() == []
    office.fill()
    (request,) = daily(office)
    assert request.run_key == "2026-03-03T03:00:00+00:00"
    job = office.definitions.resolve_job_def("reconcile")
    run = office.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert daily(office) == f"reconcile {run.run_id[:8]} is started; the next comparison is tomorrow's"


# -- sensor -------------------------------------------------------------------------------------------------------


def test_the_first_tick_asks_for_a_full_extract_without_any_request(office):
    result = office.tick()
    (request,) = result.run_requests or []
    assert request.job_name == "rally_full_extract"
    assert {key.path[-1] for key in request.asset_selection} == {entity.value for entity in Entity}
    assert office.requests() == []


def test_a_quiet_feed_costs_one_request_and_gives_a_reason(office):
    office.fill()
    office.sandbox.log.clear()
    result = office.tick()
    assert not result.run_requests
    assert result.skip_reason.skip_message == "no change since the last read (1 request)"
    assert office.requests() == ["/sync/changes"]


def test_changes_ask_for_just_their_windows(office):
    office.fill()
    office.rally.mutate(5)
    result = office.tick()
    (request,) = result.run_requests or []
    assert request.job_name == "rally_incremental"
    assert request.tags["dagster/asset_partition_range_start"] == running_hour()
    assert request.tags["dagster/asset_partition_range_end"] == running_hour()
    assert request.run_key is None
    cursor = RequestCursor.read(result.cursor)
    assert (cursor.version, cursor.attempts) == (1, 1)
    assert office.run("rally_incremental", tags=request.tags, asset_selection=request.asset_selection).success
    assert not office.tick(result.cursor).run_requests
    assert office.differences() == 0


def test_windows_apart_from_each_other_are_runs_of_their_own(yesterday):
    office = yesterday
    office.fill()
    first = hour_of(office.sandbox.clock.now())
    for hours in (1, 3):
        office.sandbox.clock.advance(hours * 3600)
        office.rally.mutate(2, tie_share=1.0)
    result = office.tick()
    starts = [request.tags["dagster/asset_partition_range_start"] for request in result.run_requests]
    assert starts == [window_key(first + HOUR), window_key(first + 4 * HOUR)]
    selections = [len(request.asset_selection) for request in result.run_requests]
    assert selections == [1, 5]  # only the last one settles


def test_a_request_whose_run_failed_is_repeated_later_not_at_once(office):
    office.fill()
    office.rally.mutate(5)
    first = office.tick()
    second = office.tick(first.cursor)
    assert not second.run_requests
    assert "repeated after" in second.skip_reason.skip_message
    other = RequestCursor.read(first.cursor)
    due = RequestCursor(request=other.request, attempts=1, retry_at="2026-01-01T00:00:00+00:00")
    assert office.tick(due.text()).run_requests


@pytest.mark.parametrize("cursor", ["", "garbage", '{"version": 7}', "2026-01-01T00:00:00Z"])
def test_a_lost_or_foreign_cursor_changes_nothing(office, cursor):
    office.fill()
    office.rally.mutate(5)
    assert len(office.tick(cursor).run_requests) == 1


def test_nothing_is_asked_for_while_a_run_is_at_work(office):
    office.fill()
    office.rally.mutate(5)
    office.sandbox.log.clear()
    job = office.definitions.resolve_job_def("rally_incremental")
    run = office.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    result = office.tick()
    assert not result.run_requests
    assert f"rally_incremental {run.run_id[:8]} is started" in result.skip_reason.skip_message
    assert office.requests() == []


def test_marks_that_could_not_be_settled_are_asked_for_again(office):
    office.fill()
    office.rally.mutate(5, kinds=["update"], entities=["deals"])
    office.run("rally_incremental", partition_key=running_hour(), asset_selection=[FEED])
    result = office.tick()
    (request,) = result.run_requests or []
    assert [key.path for key in request.asset_selection] == [["rally", "deals"]]
    assert office.run("rally_incremental", tags=request.tags, asset_selection=request.asset_selection).success
    assert office.differences() == 0


def test_an_outage_skips_with_the_reason_and_a_wrong_key_is_a_failed_tick(office, monkeypatch):
    office.fill()
    office.server.refuse_connections()
    result = office.tick('{"version": 1, "latest": "2026-01-01T00:00:00+00:00"}')
    assert "tried again at the next tick" in result.skip_reason.skip_message
    assert RequestCursor.read(result.cursor).latest
    office.server.accept_connections()
    monkeypatch.setenv("RALLY_API_KEY", "rk_live_wrong")
    with pytest.raises(dg.Failure, match="RALLY_API_KEY"):
        office.tick()


def test_a_tick_gives_up_long_before_dagster_ends_it(office, monkeypatch):
    """Dagster ends a tick after a minute and loses what it wanted to say."""
    resource = RallyResource(api_url=office.settings.rally_api_url, api_key="rk")
    warehouse = WarehouseResource(url=office.settings.warehouse)
    with resource.mirror(warehouse, tick=True) as mirror:
        policy, limits = mirror.client.http._policy, mirror.client.http._limits
    assert policy.total_seconds + limits.total_seconds <= 30


@pytest.mark.fault("C6")
def test_changes_of_hours_that_this_machine_does_not_know_yet_are_read_all_the_same(ahead_in_files):
    office = ahead_in_files
    office.fill()
    office.rally.mutate(8)
    result = office.tick()
    (request,) = result.run_requests or []
    assert request.tags["dagster/asset_partition_range_end"] == running_hour()
    assert office.run("rally_incremental", tags=request.tags, asset_selection=request.asset_selection).success
    assert office.differences() == 0
    assert not office.tick(result.cursor).run_requests
    found = materialization(office, "rally", "deals")
    assert 0 <= found["rally/lag_seconds"] < 900
    # Materialised by hand: the newest hour that Dagster shows.
    office.rally.mutate(8)
    assert office.run("rally_incremental", partition_key=running_hour()).success
    assert office.differences() == 0


@pytest.mark.fault("C5")
def test_a_far_future_entry_is_asked_for_once_within_the_partitions_that_exist(office):
    office.fill()
    victim = office.rally.ids("contacts")[0]
    office.rally.change_silently("contacts", victim, {"notes": "never"})
    office.rally.entry("contact", victim, changed_at="9999-12-31T23:59:59Z")
    result = office.tick()
    (request,) = result.run_requests or []
    assert request.tags["dagster/asset_partition_range_end"] == running_hour()
    assert office.run("rally_incremental", tags=request.tags, asset_selection=request.asset_selection).success
    assert office.differences() == 0
    assert office.tick(result.cursor).skip_reason.skip_message.startswith("no change since the last read")


@pytest.mark.fault("F2")
def test_a_group_that_no_page_can_hold_is_waited_for_and_extracted_once(office):
    office.rally.switch(feed_max_limit=100)
    office.rally.mutate(150, kinds=["insert"], entities=["deals"])
    office.sandbox.clock.advance(120)
    office.fill()
    office.sandbox.clock.advance(120)
    change_together(office, "deals", 130)
    result = office.tick()
    (request,) = result.run_requests or []
    failures = failed_steps(office.run("rally_incremental", tags=request.tags))
    assert "more deals changed" in failures["rally_feed__changes"]
    waiting = office.tick(result.cursor)
    said = (waiting.skip_reason and waiting.skip_reason.skip_message) or ""
    asked = [run.job_name for run in waiting.run_requests or []]
    assert "is requested at the first tick after" in said or asked == [
        "rally_incremental"
    ]  # open marks meanwhile
    office.sandbox.clock.advance(OVERLAP + 2)
    result = office.tick(waiting.cursor)
    (request,) = result.run_requests or []
    assert request.job_name == "rally_full_extract"
    assert [key.path for key in request.asset_selection] == [["rally_extract", "deals"], ["rally", "deals"]]
    assert office.run("rally_full_extract", asset_selection=request.asset_selection).success
    for _ in range(4):
        result = office.tick()
        requests = result.run_requests or []
        assert {request.job_name for request in requests} <= {"rally_incremental"}
        for request in requests:
            assert office.run(
                "rally_incremental", tags=request.tags, asset_selection=request.asset_selection
            ).success
        office.sandbox.clock.advance(OVERLAP)
    assert not requests
    assert office.differences() == 0


def change_together(office: Office, entity: str, count: int) -> None:
    """Change records so that all entries bear one time."""
    at = office.sandbox.clock.now().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    singular = Entity(entity).singular
    for record in office.rally.ids(entity)[:count]:
        office.rally.change_silently(entity, record, {"notes": "together"})
        office.rally.entry(singular, record, changed_at=at)


# -- schedule -----------------------------------------------------------------------------------------------------


def test_no_hour_is_closed_that_only_one_of_the_clocks_knows(ahead_in_files):
    """The source is three hours ahead: what it has closed becomes a partition when this machine gets there."""
    office = ahead_in_files
    office.fill()
    office.sandbox.clock.advance(2 * 3600)
    found = office.close(datetime.now(UTC))
    assert found == "every window that has ended is closed"


def test_an_hour_that_has_not_ended_at_the_source_is_not_closed_because_this_machine_is_ahead(
    yesterday_in_files,
):
    office = yesterday_in_files
    office.fill()
    found = office.close(datetime.now(UTC))
    running = window_key(hour_of(office.sandbox.clock.now()))
    ends = [] if isinstance(found, str) else [r.tags["dagster/asset_partition_range_end"] for r in found]
    assert all(end < running for end in ends)


def test_ended_hours_are_closed_once_and_quiet_ones_too(yesterday_in_files):
    office = yesterday_in_files
    office.fill()
    assert office.close(office.sandbox.clock.now()) == "every window that has ended is closed"
    first = hour_of(office.sandbox.clock.now())
    office.sandbox.clock.advance(3 * 3600)
    at = hour_of(office.sandbox.clock.now()) + timedelta(minutes=1)
    requests = office.close(at)
    assert isinstance(requests, list)
    (request,) = requests
    assert request.tags["dagster/asset_partition_range_start"] == window_key(first)
    assert request.tags["dagster/asset_partition_range_end"] == window_key(first + 2 * HOUR)
    assert request.run_key
    assert office.run("rally_incremental", tags=request.tags).success
    assert office.close(at) == "every window that has ended is closed"


def test_hours_are_closed_without_the_tables_while_a_full_extract_works_on_them(yesterday_in_files):
    office = yesterday_in_files
    office.fill()
    office.sandbox.clock.advance(3 * 3600)
    job = office.definitions.resolve_job_def("rally_full_extract")
    run = office.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    (request,) = office.close(office.sandbox.clock.now())
    assert request.asset_selection == [dg.AssetKey(["rally_feed", "changes"])]
    office.instance.report_run_canceled(run)
    (request,) = office.close(office.sandbox.clock.now())
    assert len(request.asset_selection) == 5


def test_an_hour_closed_by_the_read_of_a_later_one_is_still_shown_as_read(yesterday_in_files):
    office = yesterday_in_files
    office.fill()
    first = hour_of(office.sandbox.clock.now())
    office.sandbox.clock.advance(2 * 3600 + 60)
    office.rally.mutate(1)
    later = window_key(hour_of(office.sandbox.clock.now()))
    assert office.run("rally_incremental", partition_key=later).success
    with open_mirror(office.settings) as mirror:
        assert mirror.windows_to_close(office.sandbox.clock.now()) == []
    (request,) = office.close(office.sandbox.clock.now())
    assert request.tags["dagster/asset_partition_range_start"] == window_key(first)
    assert request.tags["dagster/asset_partition_range_end"] == window_key(first + HOUR)


# -- resource -----------------------------------------------------------------------------------------------------


def test_every_option_of_the_resource_arrives_in_the_engine(monkeypatch, tmp_path):
    """Each value differs from its default: an option that is read nowhere would go unnoticed otherwise."""
    for name in ("RALLY_API_URL", "RALLY_API_KEY", "WAREHOUSE_URL"):
        monkeypatch.delenv(name, raising=False)
    resource = RallyResource(
        api_url="https://other.rallycrm.example/api/v1",
        api_key="rk_other",
        overlap_seconds=77,
        staleness_seconds=11,
        delete_mode="soft",
    )
    warehouse = WarehouseResource(url=f"sqlite:///{tmp_path / 'other.db'}", db_schema=None)
    with resource.mirror(warehouse) as mirror:
        assert (mirror.policy.overlap_seconds, mirror.policy.staleness_seconds) == (77, 11)
        assert mirror.policy.delete_mode == "soft"
        assert "other.rallycrm.example" in repr(mirror.client.http)
    assert (tmp_path / "other.db").exists()
    assert "rk_other" not in repr(resource)


@pytest.fixture
def openings(monkeypatch) -> list[Warehouse]:
    """Every warehouse that is opened from here on."""
    found: list[Warehouse] = []
    open_one = Warehouse.open

    def remember(*args: Any, **options: Any) -> Warehouse:
        found.append(open_one(*args, **options))
        return found[-1]

    monkeypatch.setattr(Warehouse, "open", remember)
    return found


def is_closed(warehouse: Warehouse) -> bool:
    return warehouse._sessions.engine.pool.checkedin() == 0


def test_the_steps_of_a_run_open_the_warehouse_once_and_close_it(office, openings):
    office.fill()
    openings.clear()
    assert office.run("rally_incremental", partition_key=running_hour()).success
    (opened,) = openings
    assert is_closed(opened)


def test_after_a_failure_the_next_step_opens_the_warehouse_afresh(office, openings):
    resource = RallyResource(api_url=office.settings.rally_api_url, api_key="rk")
    warehouse = WarehouseResource(url=office.settings.warehouse)
    with suppress(ValueError), resource.mirror(warehouse):
        raise ValueError
    assert is_closed(openings[0])
    with resource.mirror(warehouse) as mirror:
        assert mirror.coverage().base is None
    assert len(openings) == 2


def test_the_log_of_the_feed_keeps_every_entry_once(office):
    office.fill()
    office.rally.mutate(40, tie_share=0.9)
    for _ in range(3):
        office.run("rally_incremental", partition_key=running_hour())
    with open_mirror(office.settings) as mirror, mirror.warehouse.reading() as transaction:
        assert transaction.count(changes) == 40
