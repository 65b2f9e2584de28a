"""`rally-pipeline restored` as a person meets it: last night's backup is put back, and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.defs.inbox import import_sensor
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from rally_pipeline.warehouse import Warehouse
from tests.cli.conftest import Shell
from tests.rally.files.desk import activities, csv_text


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    sell = {"records": 40, "page_size": 20, "limit_per_second": None}
    sandbox = Sandbox(records=40, clock=SandboxClock.running(), apis=["rally", "sell"], sell=sell)
    with SandboxServer(sandbox) as served:
        yield served


@pytest.fixture
def office(shell: Shell, server: SandboxServer) -> Shell:
    pace = {"RALLY_STALENESS_SECONDS": "0", "RALLY_FEED_OVERLAP_SECONDS": "30"}
    shell.variables |= {**server.environment(), **pace}
    return shell


def put_back(shell: Shell, into_the_same_file: bool) -> None:
    """Last night's backup."""
    file, backup = shell.home / "warehouse.db", shell.home / "backup"
    for log in shell.home.glob("warehouse.db-*"):
        log.unlink()
    if into_the_same_file:
        shutil.copyfile(backup, file)
    else:
        file.rename(shell.home / "lost")
        shutil.copy(backup, file)


@pytest.mark.parametrize("into_the_same_file", [True, False])
def test_a_backup_is_put_back(office: Shell, server: SandboxServer, into_the_same_file: bool) -> None:
    assert office.say("sync").exit_code == 0
    shutil.copy(office.home / "warehouse.db", office.home / "backup")
    inbox = office.home / "imports" / "activities"
    inbox.mkdir(parents=True)
    file = inbox / "calls.csv"
    file.write_text(csv_text(TEMPLATES[Entity.ACTIVITIES].headers, activities(5)))
    assert office.say("import", "activities", str(file)).exit_code == 0
    server.sandbox.rally.mutate(20)
    server.sandbox.sell.world.mutate(20)
    assert office.say("sync").exit_code == 0
    imported = server.sandbox.rally.counts()["activities"]
    put_back(office, into_the_same_file)

    for command in (["sync", "sell"], ["import", "activities", str(file)]):
        stopped = office.say(*command)
        assert stopped.exit_code == 2
        assert "rally-pipeline restored" in stopped.stderr
    status = json.loads(office.say("status", "--json").stdout)
    assert len(status["copy_or_older_state"]) == (1 if into_the_same_file else 2)
    assert "run `rally-pipeline restored`" in office.say("status").stdout
    asked = office.say("restored")
    assert asked.exit_code == 2
    assert "--yes" in asked.stderr
    done = office.say("restored", "--yes")
    assert done.exit_code == 0, done.stderr
    assert "activities/calls.csv" in done.stderr
    name, _, uuid = done.stdout.strip().partition("=")
    assert name == "SELL_DEVICE_UUID"

    held = office.say("import", "activities", str(file))
    assert held.exit_code == 2
    assert "--again" in held.stderr
    assert json.loads(office.say("status", "--json").stdout)["copy_or_older_state"] == []
    assert office.say("sync", "sell").exit_code == 2
    office.variables["SELL_DEVICE_UUID"] = uuid
    caught_up = office.say("sync")
    assert caught_up.exit_code == 0, caught_up.stderr
    verified = office.say("verify", "--json")
    assert json.loads(verified.stdout)["equal"], verified.stderr
    assert server.sandbox.rally.counts()["activities"] == imported
    assert office.say("import", "activities", str(file), "--again").exit_code == 0
    assert server.sandbox.rally.counts()["activities"] == imported + 5
    assert "already imported" in office.say("import", "activities", str(file)).stdout


def test_the_inbox_sensor_leaves_what_counts_as_imported_alone(office: Shell) -> None:
    assert office.say("status").exit_code == 0
    inbox = office.home / "imports" / "activities"
    inbox.mkdir(parents=True)
    (inbox / "calls.csv").write_text(csv_text(TEMPLATES[Entity.ACTIVITIES].headers, activities(2)))
    assert office.say("restored", "--yes").exit_code == 0
    settings = office.settings()
    sensor, warehouse = import_sensor(settings), WarehouseResource(url=f"sqlite:///{settings.warehouse}")
    cursor = None
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(3):
            found = _tick(sensor, instance, warehouse, cursor)
            cursor = found.cursor
            assert not found.run_requests
    assert "counts as imported since the warehouse was restored" in (found.skip_message or "")


def test_the_inbox_sensor_asks_for_no_import_into_an_older_state(office: Shell) -> None:
    assert office.say("status").exit_code == 0
    inbox = office.home / "imports" / "activities"
    inbox.mkdir(parents=True)
    (inbox / "calls.csv").write_text(csv_text(TEMPLATES[Entity.ACTIVITIES].headers, activities(2)))
    shutil.copy(office.home / "warehouse.db", office.home / "backup")
    put_back(office, into_the_same_file=False)
    settings = office.settings()
    sensor, warehouse = import_sensor(settings), WarehouseResource(url=f"sqlite:///{settings.warehouse}")
    with dg.DagsterInstance.ephemeral() as instance:
        seen = _tick(sensor, instance, warehouse, None)
        with pytest.raises(dg.Failure, match="rally-pipeline restored"):
            _tick(sensor, instance, warehouse, seen.cursor)


def _tick(
    sensor: dg.SensorDefinition,
    instance: dg.DagsterInstance,
    warehouse: WarehouseResource,
    cursor: str | None,
) -> Any:
    resources = {"warehouse": warehouse}
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
        return sensor.evaluate_tick(context)


def test_without_a_warehouse_there_is_nothing_to_say(shell: Shell) -> None:
    done = shell.say("restored", "--yes")
    assert done.exit_code == 2
    assert "there is no warehouse at" in done.stderr
    assert not shell.home.exists()


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 2), (b"y\n", 0)])
def test_on_a_terminal_it_asks(office: Shell, answer: bytes, code: int) -> None:
    assert office.say("status").exit_code == 0
    with Warehouse.open(office.settings().warehouse) as warehouse:
        before = warehouse.identity().id
    master, slave = pty.openpty()
    os.write(master, answer)
    done = subprocess.run(
        [sys.executable, "-m", "rally_pipeline.cli", "restored"],
        cwd=office.folder,
        env=office.environment(),
        stdin=slave,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    os.close(master)
    os.close(slave)
    assert done.returncode == code, done.stderr
    assert "was restored from a backup or copied?" in done.stderr
    with Warehouse.open(office.settings().warehouse) as warehouse:
        assert (warehouse.identity().id == before) == (code == 2)
