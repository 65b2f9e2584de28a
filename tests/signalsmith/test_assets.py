"""The assets and schedules of syncs: what a run shows, when it fails, and what a tick asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.test_utils import create_run_for_test

from rally_pipeline.orchestration import failures
from rally_pipeline.signalsmith.defs.names import REMOTE_RUN_TAG, TICK_TAG
from rally_pipeline.signalsmith.defs.sync_assets import request_key
from tests.signalsmith.location import Location

MakeLocation = Callable[..., Location]
CONTACTS = "contacts_to_newsletter"
JOB = f"signalsmith_{CONTACTS}"
TICK = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def shown(materialization: dg.AssetMaterialization) -> dict[str, Any]:
    return {key: value.value for key, value in materialization.metadata.items()}


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (event,) = [event for event in result.all_events if event.event_type_value == "ASSET_CHECK_EVALUATION"]
    found = event.event_specific_data
    assert isinstance(found, dg.AssetCheckEvaluation)
    return found


def test_a_run_shows_counts_duration_links_mode_and_what_it_cost(location: Location) -> None:
    bench = location.bench
    bench.control("plan_run", sync=bench.sync_id(0), rows=100, failed_rows=0, run_seconds=72.0)
    assert location.run(JOB).success
    (found,) = location.materializations(CONTACTS)
    seen = shown(found)
    assert seen["signalsmith/rows_synced"] == seen["dagster/row_count"] == 100
    assert seen["signalsmith/rows_failed"] == 0
    assert seen["signalsmith/seconds"] == 74.0  # includes the queue
    assert seen["signalsmith/mode"] == "upsert"
    assert seen["signalsmith/origin"] == "triggered"
    assert seen["signalsmith/run_id"] == bench.run_ids(bench.sync_id(0))[0]
    assert seen["signalsmith/run_link"].startswith("http://127.0.0.1:9/workspaces/")
    assert {"signalsmith/waited_seconds", "signalsmith/requests", "signalsmith/throttled"} <= set(seen)
    assert found.tags is not None
    assert found.tags[REMOTE_RUN_TAG] == seen["signalsmith/run_id"]


def test_mapping_and_model_become_column_schema_and_lineage(location: Location) -> None:
    graph = location.definitions.resolve_asset_graph()
    node = graph.get(dg.AssetKey(["signalsmith", CONTACTS]))
    assert node.parent_keys == {dg.AssetKey(["rally", "contacts"])}
    schema = node.metadata["dagster/column_schema"]
    assert (schema.columns[0].name, schema.columns[0].type) == ("external_id", "VARCHAR")
    location.run(JOB)
    lineage = shown(location.materializations(CONTACTS)[0])["dagster/column_lineage"]
    assert lineage.deps_by_column["email"] == [
        dg.TableColumnDep(asset_key=dg.AssetKey(["rally", "contacts"]), column_name="email")
    ]


def test_a_model_over_two_tables_has_both_upstream_and_claims_no_column_lineage(location: Location) -> None:
    graph = location.definitions.resolve_asset_graph()
    parents = graph.get(dg.AssetKey(["signalsmith", "deals_to_finance"])).parent_keys
    assert parents == {dg.AssetKey(["rally", "deals"]), dg.AssetKey(["rally", "companies"])}
    location.run("signalsmith_deals_to_finance")
    assert "dagster/column_lineage" not in shown(location.materializations("deals_to_finance")[0])


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_remote_failure_fails_the_run_with_the_remote_message_and_no_retry(
    location: Location, outcome: str
) -> None:
    bench = location.bench
    bench.control("plan_run", sync=bench.sync_id(0), outcome=outcome, error="destination login expired")
    result = location.run(JOB)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert f"{outcome} in SignalSmith: destination login expired" in (data.description or "")
    assert "signalsmith/run_link" in data.metadata
    assert location.materializations(CONTACTS) == []
    assert len(bench.started(bench.sync_id(0))) == 1


def test_a_cancelled_dagster_run_says_that_the_remote_run_goes_on(location: Location) -> None:
    bench = location.bench
    bench.control("plan_run", sync=bench.sync_id(0), run_seconds=600.0)

    def cancel(name: str) -> None:
        if name.endswith(":before") and "/runs/" in name and len(bench.requests("/runs/")) >= 2:
            bench.step = lambda name: None
            raise DagsterExecutionInterruptedError

    bench.step = cancel
    with contextlib.suppress(DagsterExecutionInterruptedError):
        location.run(JOB)
    (run,) = location.instance.get_runs()
    assert run.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)
    assert location.materializations(CONTACTS) == []
    said = " ".join(entry.user_message for entry in location.instance.all_logs(run.run_id))
    remote = bench.run_ids(bench.sync_id(0))[0]
    assert f"run {remote} goes on in SignalSmith, which has no call to cancel it" in said


def test_an_outage_has_the_step_tried_again_and_attached_to_its_run(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "OUTAGE_WAIT_SECONDS", 0)
    bench = location.bench
    bench.sandbox.faults.add("status_503", method="GET", path="*/runs", times=8)
    result = location.run(JOB)
    assert result.success
    assert [event.event_type_value for event in result.all_events].count("STEP_UP_FOR_RETRY") >= 1
    assert len(bench.started(bench.sync_id(0))) == 1


@pytest.mark.parametrize(
    ("failed", "passed", "severity"),
    [(0, True, "WARN"), (4, False, "WARN"), (10, False, "WARN"), (11, False, "ERROR"), (100, False, "ERROR")],
)
def test_failed_rows_warn_or_fail_the_check_by_a_threshold(
    location: Location, failed: int, passed: bool, severity: str
) -> None:
    bench = location.bench
    bench.control("plan_run", sync=bench.sync_id(0), rows=100, failed_rows=failed)
    result = location.run(JOB)
    assert result.success
    check = check_of(result)
    assert (check.passed, check.severity.value) == (passed, severity)
    assert check.metadata["rows_failed"].value == failed


def test_the_thresholds_are_options_of_the_sync(make_location: MakeLocation) -> None:
    location = make_location(switches={"scheduler": False})
    bench = location.bench
    (bench.home / "syncs").mkdir()
    (bench.home / "syncs" / "signalsmith.yaml").write_text(
        "syncs: {Contacts to newsletter: {warn_above_rows: 20, fail_above_share: 0.5}}"
    )
    location.reload()
    bench.control("plan_run", sync=bench.sync_id(0), rows=100, failed_rows=15)
    assert check_of(location.run(JOB)).passed


def test_a_tick_attaches_to_the_run_of_the_remote_schedule(make_location: MakeLocation) -> None:
    location = make_location(stored=True)
    bench = location.bench
    bench.at(TICK)
    request = location.tick(f"{JOB}_schedule", TICK).run_requests[0]
    assert request.tags[TICK_TAG] == TICK.isoformat()
    assert location.run(JOB, request.tags).success
    assert shown(location.materializations(CONTACTS)[0])["signalsmith/origin"] == "attached"
    assert bench.requests("trigger") == []


@pytest.mark.fault("R11")
def test_a_tick_while_the_last_run_is_under_way_is_skipped(make_location: MakeLocation) -> None:
    location = make_location(stored=True, switches={"scheduler": False})
    create_run_for_test(location.instance, job_name=JOB, status=dg.DagsterRunStatus.STARTED)
    assert "never overlap" in location.tick(f"{JOB}_schedule", TICK).skip_message


def test_a_tick_of_a_vanished_or_paused_sync_is_skipped_with_the_reason(make_location: MakeLocation) -> None:
    location = make_location(stored=True, switches={"scheduler": False})
    bench = location.bench
    bench.control("edit_sync", sync=bench.sync_id(0), fields={"status": "paused"})
    bench.control("remove_sync", sync=bench.sync_id(1))
    bench.refresh()
    location.reload()
    assert "paused, not active" in location.tick(f"{JOB}_schedule", TICK).skip_message
    gone = location.tick("signalsmith_deals_to_finance_schedule", TICK).skip_message
    assert "does not list this sync any more" in gone


def test_driving_is_skipped_while_the_remote_schedule_is_active(make_location: MakeLocation) -> None:
    location = make_location(stored=True, switches={"scheduler": False})
    bench = location.bench
    (bench.home / "syncs").mkdir()
    (bench.home / "syncs" / "signalsmith.yaml").write_text("defaults: {ownership: drive}")
    location.reload()
    assert "pause the sync there" in location.tick(f"{JOB}_schedule", TICK).skip_message
    result = location.run(JOB)
    assert not result.success
    assert bench.requests("trigger") == []
    bench.control("edit_sync", sync=bench.sync_id(0), fields={"status": "paused"})
    bench.refresh()
    location.reload()
    assert location.tick(f"{JOB}_schedule", TICK).run_requests
    assert location.run(JOB).success


def test_an_observed_sync_has_no_schedule_and_is_never_triggered(location: Location) -> None:
    bench = location.bench
    (bench.home / "syncs").mkdir()
    (bench.home / "syncs" / "signalsmith.yaml").write_text("defaults: {ownership: observe}")
    location.reload()
    assert [each.name for each in location.repository.schedule_defs] == []
    assert not location.run(JOB).success
    assert bench.requests("trigger") == []


def test_a_schedule_shows_the_original_expression_the_zone_and_remarks(make_location: MakeLocation) -> None:
    location = make_location(timezone="Europe/Berlin")
    bench = location.bench
    bench.control("add_sync", name="Odd", schedule="0 9 * JAN-MAR mon")
    bench.refresh()
    location.reload()
    schedule = location.repository.get_schedule_def("signalsmith_odd_schedule")
    assert schedule.cron_schedule == "0 9 * 1-3 1"
    assert schedule.execution_timezone == "Europe/Berlin"
    assert schedule.metadata["signalsmith/schedule"].value == "0 9 * JAN-MAR mon"
    assert "outside the documented dialect" in schedule.metadata["signalsmith/remarks"].value
    assert schedule.metadata["signalsmith/timezone"].value == "Europe/Berlin (workspace setting)"


def test_schedules_start_stopped_unless_told_otherwise(location: Location) -> None:
    assert {each.default_status for each in location.repository.schedule_defs} == {
        dg.DefaultScheduleStatus.STOPPED
    }


def test_the_freshness_of_a_sync_follows_from_its_cron(location: Location) -> None:
    bench = location.bench
    bench.control("add_sync", name="Weekdays", schedule="0 9 * * 1-5")
    bench.refresh()
    location.reload()
    graph = location.definitions.resolve_asset_graph()

    def policy(slug: str) -> Any:
        return graph.get(dg.AssetKey(["signalsmith", slug])).freshness_policy

    assert policy("deals_to_finance").fail_window.to_timedelta().total_seconds() == 5400
    assert policy("weekdays") is None


def test_remote_texts_are_never_markdown(make_location: MakeLocation) -> None:
    location = make_location(hostile=True)
    for asset in location.definitions.assets or []:
        for spec in asset.specs:  # type: ignore[union-attr]
            assert "script" not in (spec.description or "")
            for value in spec.metadata.values():
                assert not isinstance(value, dg.MarkdownMetadataValue)
                if isinstance(value, dg.UrlMetadataValue):
                    assert value.value.startswith("http://127.0.0.1:9/")


def test_the_catalog_says_what_got_no_schedule_and_why(make_location: MakeLocation) -> None:
    location = make_location(hostile=True)
    node = location.definitions.resolve_asset_graph().get(dg.AssetKey(["signalsmith", "catalog"]))
    silent = {
        record.data["sync"]: record.data["reason"]
        for record in node.metadata["signalsmith/without_schedule"].records
    }
    assert silent["Fires never too (fires_never_too)"].endswith("no such day exists in those months")
    assert len(node.metadata["signalsmith/skipped"].records) == 9
    result = location.run("signalsmith_catalog")
    assert result.success
    checks = {
        event.event_specific_data.check_name: event.event_specific_data.passed
        for event in result.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
    }
    assert checks == {"every_sync_usable": False, "every_cron_scheduled": False}


def test_a_shrunken_list_fails_the_catalog_run_and_says_what_to_do(make_location: MakeLocation) -> None:
    location = make_location(syncs=10)
    for sync_id in list(location.bench.api.engine.syncs)[:7]:
        location.bench.control("remove_sync", sync=sync_id)
    result = location.run("signalsmith_catalog")
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "--accept-shrink" in str(failure.step_failure_data.user_failure_data)


# What a Dagster run asks for


def test_a_retry_of_a_tick_asks_for_the_same_run_and_a_person_who_clicks_for_a_new_one(
    location: Location,
) -> None:
    instance, tick = location.instance, {TICK_TAG: TICK.isoformat()}
    first = create_run_for_test(instance, job_name=JOB, tags=tick)
    assert request_key(instance, first) == (f"tick:{TICK.isoformat()}", TICK)
    retry = create_run_for_test(
        instance, job_name=JOB, tags={**tick, "dagster/retry_number": "1"},
        parent_run_id=first.run_id, root_run_id=first.run_id,
    )  # fmt: skip
    assert request_key(instance, retry) == (f"tick:{TICK.isoformat()}", TICK)
    by_hand = create_run_for_test(
        instance, job_name=JOB, tags=tick, parent_run_id=first.run_id, root_run_id=first.run_id
    )
    assert request_key(instance, by_hand) == (f"run:{by_hand.run_id}", None)
    its_retry = create_run_for_test(
        instance, job_name=JOB, tags={**tick, "dagster/retry_number": "1"},
        parent_run_id=by_hand.run_id, root_run_id=first.run_id,
    )  # fmt: skip
    assert request_key(instance, its_retry) == (f"run:{by_hand.run_id}", None)


def test_a_repeated_tick_gets_one_remote_run(location: Location) -> None:
    bench = location.bench
    bench.at(TICK)
    for _ in range(2):
        assert location.run(JOB, {TICK_TAG: TICK.isoformat()}).success
    assert len(bench.started(bench.sync_id(0))) == 1
    assert len(location.materializations(CONTACTS)) == 2


@pytest.mark.fault("P7")
def test_a_step_that_is_retried_attaches_to_its_run(location: Location) -> None:
    """The warehouse of the step's first attempt is away after the trigger; the second attempt goes on."""
    bench = location.bench
    bench.control("plan_run", sync=bench.sync_id(0), run_seconds=60.0)
    bench.sandbox.faults.add("forbidden", method="GET", path="*/runs/*", times=1)
    result = location.run(JOB)
    assert not result.success
    run_id = bench.run_ids(bench.sync_id(0))[0]
    retry = location.run(
        JOB,
        {
            "dagster/retry_number": "1",
            "dagster/parent_run_id": result.run_id,
            "dagster/root_run_id": result.run_id,
        },
    )
    assert retry.success
    assert bench.run_ids(bench.sync_id(0)) == [run_id] or len(bench.run_ids(bench.sync_id(0))) == 1
