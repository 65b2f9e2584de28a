"""Sell in Dagster: real runs against the sandbox over loopback, into a real warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rally_pipeline.rooms import build
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from rally_pipeline.sell.connection import open_mirror
from rally_pipeline.sell.defs.triggers import check_cron
from rally_pipeline.sell.entities import Entity
from rally_pipeline.settings import Settings, SettingsError, load_settings

QUEUE = dg.AssetKey(["sell_queue", "items"])
ASSETS = {QUEUE, *(dg.AssetKey(["sell", entity.value]) for entity in Entity)}


class Office:
    """An account in the sandbox, served on loopback, and Dagster's definitions that point at it."""

    def __init__(self, server: SandboxServer, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.api = server.sandbox.sell
        self.sandbox = server.sandbox
        self.settings = settings
        self.instance = instance
        self.definitions = build(settings, announce=False)

    def run(self, **options: Any) -> dg.ExecuteInProcessResult:
        """Execute the drain job; a failing step fails the run, not the test."""
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        return self.definitions.resolve_job_def("sell_drain").execute_in_process(
            instance=self.instance, raise_on_error=False, run_config=quiet, **options
        )

    def metadata(self, result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
        (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == key]
        return {name: value.value for name, value in event.materialization.metadata.items()}


@pytest.fixture
def office(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    options = {"records": 60, "page_size": 20, "limit_per_second": None}
    sandbox = Sandbox(seed=2, apis=["sell"], clock=SandboxClock.running(), sell=options)
    with SandboxServer(sandbox) as server, dg.DagsterInstance.ephemeral() as instance:
        environment = {
            **server.environment(),
            "WAREHOUSE_URL": sqlite_url,
            "RALLY_PIPELINE_HOME": str(tmp_path / "home"),
            "RALLY_STALENESS_SECONDS": "0",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Office(server, load_settings(), instance)


def test_the_names_are_those_of_the_contract(office: Office) -> None:
    graph = office.definitions.resolve_asset_graph()
    assert graph.get_all_asset_keys() >= ASSETS
    assert office.definitions.resolve_job_def("sell_drain")
    schedule = office.definitions.resolve_schedule_def("sell_drain_schedule")
    assert schedule.cron_schedule == office.settings.sell_drain_cron
    assert schedule.execution_timezone == "UTC"


def test_a_drain_materialises_everything_with_numbers_and_green_checks(office: Office) -> None:
    result = office.run()
    assert result.success
    assert {event.asset_key for event in result.get_asset_materialization_events()} == ASSETS
    queue = office.metadata(result, QUEUE)
    assert queue["sell/stopped_reason"] == "drained"
    assert queue["sell/items"] == sum(len(rows) for rows in office.api.truth().values())
    assert queue["sell/requests"] == queue["sell/pages"] + queue["sell/acks"] + 2
    assert queue["dagster/row_count"] == queue["sell/items"]
    leads = office.metadata(result, dg.AssetKey(["sell", "leads"]))
    assert leads["dagster/row_count"] == len(office.api.truth()["leads"])
    assert leads["dagster/table_name"] == "sell_leads"
    checks = result.get_asset_check_evaluations()
    assert len(checks) == 4 + 4 * len(Entity)
    assert all(check.passed for check in checks)


def test_deletes_and_failed_objects_are_settled_in_the_same_run(office: Office) -> None:
    office.run()
    leads = list(office.api.world.live("lead"))
    office.api.world.delete("lead", leads[0].id)
    office.api.world.update("lead", leads[1].id)
    office.api.sync.failing[leads[1].reference] = 1
    result = office.run()
    assert result.success
    assert office.metadata(result, dg.AssetKey(["sell", "leads"]))["sell/settled"] == 2
    with open_mirror(office.settings) as mirror:
        status = {table.table: table for table in mirror.status().tables}
    assert status["sell_leads"].rows == len(office.api.truth()["leads"])
    assert status["sell_leads"].open_marks == 0


def test_one_table_can_be_materialised_alone(office: Office) -> None:
    office.run()
    before = len(office.sandbox.log)
    result = office.run(asset_selection=[dg.AssetKey(["sell", "leads"])])
    assert result.success
    assert [event.asset_key.path[-1] for event in result.get_asset_materialization_events()] == ["leads"]
    assert len(office.sandbox.log) == before


def test_an_early_end_is_a_failed_check_and_not_plain_green(office: Office) -> None:
    office.api.refuse(404, path="/v2/sync/*/queues/main", times=None)
    result = office.run()
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["queue_drained"].passed
    assert checks["queue_drained"].metadata["stopped_reason"].value == "session_lost"


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda api: setattr(api, "token", "y" * 64), "SELL_ACCESS_TOKEN"),
        (lambda api: api.switch(scopes=["read"]), "lacks the scope `sync`"),
        (lambda api: api.switch(retired=True), "retired"),
    ],
)
def test_what_a_person_must_mend_fails_at_once_with_one_line(
    office: Office, break_it: Any, words: str
) -> None:
    break_it(office.api)
    result = office.run()
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    line = failure.step_failure_data.user_failure_data.description
    assert words in line
    assert "\n" not in line
    assert office.api.token not in line
    assert len(office.sandbox.log) == 1


def test_a_tick_during_a_drain_is_skipped(office: Office, tmp_path: Path) -> None:
    schedule = office.definitions.resolve_schedule_def("sell_drain_schedule")
    job = office.definitions.resolve_job_def("sell_drain")
    at = datetime(2026, 3, 2, 8, 15, tzinfo=UTC)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
        (request,) = schedule.evaluate_tick(context).run_requests or ()
        assert request.run_key == at.isoformat()
        instance.create_run_for_job(job)
        assert "sell_drain" in str(schedule.evaluate_tick(context).skip_message)


@pytest.mark.parametrize(
    "cron", ["* * *", "0 0 31 4 *", "0 0 30 2 *", "R * * * *", "*/15 * * * * *", "@reboot", ""]
)
def test_a_cron_that_never_fires_is_refused_by_name(cron: str) -> None:
    with pytest.raises(SettingsError, match="SELL_DRAIN_CRON"):
        check_cron(cron)


def test_a_cron_that_cannot_be_used_stops_the_schedule_alone(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its place stays taken: Dagster forgets the switch of a schedule that is missing."""
    monkeypatch.setenv("SELL_DRAIN_CRON", "every quarter of an hour")
    definitions = build(load_settings(), announce=False)
    assert "SELL_DRAIN_CRON: not a cron expression" in caplog.text
    schedule = definitions.resolve_schedule_def("sell_drain_schedule")
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    context = dg.build_schedule_context(instance=office.instance, scheduled_execution_time=at)
    tick = schedule.evaluate_tick(context)
    assert not tick.run_requests
    assert "SELL_DRAIN_CRON: not a cron expression" in str(tick.skip_message)
    definitions.get_repository_def().validate_loadable()


def test_usual_crons_are_taken() -> None:
    for cron in ("*/15 * * * *", "0 6 * * mon-fri", "@hourly"):
        assert check_cron(cron) == cron


def test_nothing_secret_is_in_the_definitions_or_the_run(office: Office) -> None:
    result = office.run()
    stored = " ".join(
        str(record.event_log_entry) for record in office.instance.get_records_for_run(result.run_id).records
    )
    assert office.api.token not in stored
    assert office.api.token not in repr(office.definitions.resources)
