"""With `RALLY_PIPELINE_READ_ONLY` nothing is written to any remote system, whatever is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import Result

from rally_pipeline.cli.failures import MISTAKE
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.rooms import build
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from rally_pipeline.settings import load_settings
from tests.cli.conftest import Shell
from tests.rally.files.desk import contacts, csv_text

FORBIDDEN = "RALLY_PIPELINE_READ_ONLY=true forbids writing"


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    options = {"records": 40, "page_size": 20, "limit_per_second": None}
    quick = {"queue_seconds": 0.0, "run_seconds": 0.0, "scheduler": False}
    unlimited = {"limit_per_minute": None, "limit_per_second": None}
    sandbox = Sandbox(
        records=40,
        clock=SandboxClock.running(),
        sell=options,
        signalsmith={**unlimited, "switches": quick},
    )
    with SandboxServer(sandbox) as served:
        yield served


@pytest.fixture
def reader(shell: Shell, server: SandboxServer) -> Shell:
    """Everything is configured, and nothing may be written."""
    shell.variables |= {
        **server.environment(),
        "RALLY_STALENESS_SECONDS": "0",
        "RALLY_FEED_OVERLAP_SECONDS": "30",
        "SYNCS_DIR": str(shell.folder / "syncs"),
        "RALLY_PIPELINE_READ_ONLY": "true",
    }
    return shell


def writes(server: SandboxServer) -> list[tuple[str, str]]:
    """Calls that changed something at a remote system."""
    return [
        (entry.method, entry.path)
        for entry in server.sandbox.log
        if entry.method != "GET" or "/v2/sync/" in entry.path
    ]


def write_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(csv_text(TEMPLATES[Entity.CONTACTS].headers, contacts(3)))
    return path


def refused(done: Result) -> str:
    assert done.exit_code == MISTAKE, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert FORBIDDEN in line
    return line


def test_reading_goes_on_and_what_is_left_out_is_said(reader: Shell, server: SandboxServer) -> None:
    done = reader.say("sync")
    assert done.exit_code == 0, done.stderr
    assert "the Sell queue is not opened" in done.stderr
    assert "none of the 2 active syncs is triggered" in " ".join(done.stderr.split())
    assert reader.say("verify").exit_code == 0
    assert reader.say("verify", "--heal").exit_code == 0
    for entity in Entity:
        assert reader.say("export", entity.value).exit_code == 0
        assert reader.say("template", entity.value).exit_code == 0
    assert reader.say("replay").exit_code == 0
    assert reader.say("signalsmith", "refresh").exit_code == 0
    assert reader.say("syncs", "pull").exit_code == 0
    assert reader.say("syncs", "plan").exit_code == 0
    status = reader.say("status", "--json")
    assert json.loads(status.stdout)["read_only"] is True
    assert "RALLY_PIPELINE_READ_ONLY=true" in reader.say("status").stdout
    assert writes(server) == []


def test_each_command_that_writes_is_refused_in_one_line(reader: Shell, server: SandboxServer) -> None:
    assert "the Sell queue is not opened" in refused(reader.say("sync", "sell"))
    assert "the Sell queue is not opened" in refused(reader.say("sync", "sell", "rally"))
    write_file(reader.folder / "people.csv")
    assert "nothing is imported" in refused(reader.say("import", "contacts", "people.csv"))
    assert reader.say("import", "contacts", "people.csv", "--dry-run").exit_code == 0
    assert reader.say("syncs", "pull").exit_code == 0
    for file in (reader.folder / "syncs").glob("*.yaml"):
        file.write_text(file.read_text().replace("status: active", "status: paused"))
    assert "no sync is created" in refused(reader.say("syncs", "apply"))
    assert writes(server) == []
    written = reader.say("import", "contacts", "people.csv", RALLY_PIPELINE_READ_ONLY="false")
    assert written.exit_code == 0, written.output


def test_a_session_that_was_open_before_is_not_gone_on_with(reader: Shell, server: SandboxServer) -> None:
    from rally_pipeline.http.errors import ReadOnly
    from rally_pipeline.sell.connection import open_mirror
    from rally_pipeline.warehouse import Warehouse

    settings = reader.settings()
    with Warehouse.open(settings.warehouse) as warehouse, warehouse.transaction("left") as tx:
        tx.set_state("sell.session", {"id": "left-open"})
    with open_mirror(settings) as mirror, pytest.raises(ReadOnly):
        mirror.drain()
    assert len(server.sandbox.log) == 0


@pytest.fixture
def location(
    reader: Shell, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[dg.Definitions, dg.DagsterInstance]]:
    """The code location as Dagster loads it in this environment, its catalog fetched."""
    assert reader.say("signalsmith", "refresh").exit_code == 0
    for name, value in reader.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(reader.folder)
    with dg.DagsterInstance.local_temp() as instance:
        yield build(load_settings(), announce=False), instance


def test_no_job_writes(
    reader: Shell, server: SandboxServer, location: tuple[dg.Definitions, dg.DagsterInstance]
) -> None:
    definitions, instance = location
    failures: dict[str, str] = {}
    for job in definitions.resolve_all_job_defs():
        if job.name.startswith("__") or job.name in ("rally_import", "rally_incremental"):
            continue
        failures[job.name] = _run(definitions, instance, job.name)
    forbidden = {name for name, words in failures.items() if FORBIDDEN in words}
    syncs = {name for name in failures if name.startswith("signalsmith_") and name != "signalsmith_catalog"}
    assert forbidden == {"sell_drain", *syncs}
    assert syncs
    assert "" == failures["rally_full_extract"] == failures["signalsmith_catalog"]
    assert writes(server) == []


def _run(definitions: dg.Definitions, instance: dg.DagsterInstance, job: str, **options: Any) -> str:
    """How the first failing step failed; "" where all went well."""
    done = definitions.resolve_job_def(job).execute_in_process(
        instance=instance, raise_on_error=False, **options
    )
    for event in done.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            said = data.user_failure_data.description if data.user_failure_data is not None else None
            return str(said or data.error)
    return ""


def test_no_import_run_writes(
    reader: Shell, server: SandboxServer, location: tuple[dg.Definitions, dg.DagsterInstance]
) -> None:
    from rally_pipeline.rally.files.defs.imports import FILES, import_key
    from rally_pipeline.rally.files.folders import hash_file

    definitions, instance = location
    path = write_file(reader.home / "imports" / "contacts" / "people.csv")
    key, _ = hash_file(path)
    instance.add_dynamic_partitions(FILES.name or "", [key])
    asset = dg.AssetKey(list(import_key(Entity.CONTACTS)))
    words = _run(definitions, instance, "rally_import", partition_key=key, asset_selection=[asset])
    assert FORBIDDEN in words
    assert writes(server) == []


def test_ticks_that_would_write_are_skipped_with_the_reason(
    reader: Shell, server: SandboxServer, location: tuple[dg.Definitions, dg.DagsterInstance]
) -> None:
    definitions, instance = location
    write_file(reader.home / "imports" / "contacts" / "people.csv")
    repository = definitions.get_repository_def()
    resources = dict(definitions.resources or {})
    skipped = []
    for schedule in repository.schedule_defs:
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime.now(UTC),
            repository_def=repository,
            resources=resources,
        ) as scheduling:
            found = schedule.evaluate_tick(scheduling)
        if FORBIDDEN in (found.skip_message or ""):
            skipped.append(schedule.name)
            assert not found.run_requests
    for sensor in repository.sensor_defs:
        with dg.build_sensor_context(
            instance=instance, repository_def=repository, resources=resources
        ) as sensing:
            seen = sensor.evaluate_tick(sensing)
        if FORBIDDEN in (seen.skip_message or ""):
            skipped.append(sensor.name)
            assert not seen.run_requests
    syncs = [
        schedule.name for schedule in repository.schedule_defs if schedule.name.startswith("signalsmith_")
    ]
    assert sorted(skipped) == sorted(
        [*syncs, "sell_drain_schedule", "rally_import_sensor", "sync_trigger_sensor"]
    )
    assert syncs
    assert writes(server) == []
