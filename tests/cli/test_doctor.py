"""`rally-pipeline doctor`: before the first sync and after, with all, half and none of the settings."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from datetime import timedelta

import pytest

from rally_pipeline.doctor import examine
from rally_pipeline.doctor.finding import Finding
from rally_pipeline.rally.connection import open_mirror
from rally_pipeline.rally.entities import Entity
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from tests.cli.conftest import Shell
from tests.sell.world import new_uuid

Line = tuple[str, str, str]


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    sell = {"records": 30, "limit_per_second": None}
    unlimited = {"limit_per_minute": None, "limit_per_second": None}
    sandbox = Sandbox(records=30, clock=SandboxClock.running(), sell=sell, signalsmith=unlimited)
    with SandboxServer(sandbox) as served:
        yield served


@pytest.fixture
def patient(shell: Shell, server: SandboxServer) -> Shell:
    """Everything is configured, nothing is stored."""
    shell.variables |= server.environment()
    return shell


def examined(shell: Shell, code: int, **variables: str) -> list[Line]:
    """Verdict, subject and whole text of each line."""
    said = shell.say("doctor", "--json", **variables)
    assert said.exit_code == code, said.output
    found = json.loads(said.stdout)
    assert found["red"] == (code == 1)
    return [(one["verdict"], one["subject"], f"{one['text']} | {one['advice']}") for one in found["checks"]]


def lines_with(lines: list[Line], words: str) -> list[tuple[str, str]]:
    return [(verdict, subject) for verdict, subject, text in lines if words in text]


def assert_read_only(server: SandboxServer) -> None:
    assert [entry for entry in server.sandbox.log if entry.method != "GET" or "/v2/sync/" in entry.path] == []


def test_a_fresh_machine_is_not_red_and_stays_fresh(shell: Shell) -> None:
    lines = examined(shell, 0)
    assert lines_with(lines, "no system is configured") == [("warning", "settings")]
    assert lines_with(lines, "set RALLY_API_URL and RALLY_API_KEY") == [("ok", "rally")]
    assert lines_with(lines, "not there yet, made by the first sync") == [("ok", "warehouse")]
    assert list(shell.folder.iterdir()) == []


def test_all_is_well_before_the_first_sync(patient: Shell, server: SandboxServer) -> None:
    lines = examined(patient, 0)
    assert {verdict for verdict, subject, _ in lines if subject != "signalsmith"} == {"ok"}
    assert lines_with(lines, "may read the feed and all four lists") == [("ok", "rally")]
    assert lines_with(lines, "the scopes read and profile") == [("ok", "sell")]
    assert lines_with(lines, "will be this warehouse's with the first drain") == [("ok", "sell")]
    assert lines_with(lines, "the token opens workspace") == [("ok", "signalsmith")]
    assert lines_with(lines, "no catalog yet") == [("warning", "signalsmith")]
    assert len(lines_with(lines, "no effect on cursors")) == 3
    assert_read_only(server)
    assert list(patient.folder.iterdir()) == []
    shown = patient.say("doctor").stdout.splitlines()
    assert len(shown) == len(lines)
    assert shown[0].split()[:2] == ["ok", "home"]


def test_an_existing_warehouse_is_left_as_it_is(patient: Shell, server: SandboxServer) -> None:
    with open_mirror(patient.settings()) as mirror:
        mirror.extract(Entity.DEALS)
    with sqlite3.connect(patient.home / "warehouse.db") as before:
        rows = list(before.iterdump())
    lines = examined(patient, 0)
    assert lines_with(lines, "cp -a") == [("ok", "warehouse")]
    with sqlite3.connect(patient.home / "warehouse.db") as after:
        assert list(after.iterdump()) == rows
    assert_read_only(server)


def test_wrong_keys_are_red_in_each_system_and_shown_in_none(patient: Shell) -> None:
    wrong = {
        "RALLY_API_KEY": "rk_wrong_0123",
        "SELL_ACCESS_TOKEN": "w" * 64,
        "SIGNALSMITH_API_TOKEN": "wrong-token-0123",
    }
    said = patient.say("doctor", **wrong)
    assert said.exit_code == 1
    for name, value in wrong.items():
        assert f"check {name}" in said.stdout
        assert value not in said.output
    assert "Error: 3 problems" in said.stderr


@pytest.mark.parametrize(
    ("scopes", "missing"), [(("sync", "read"), "profile"), (("sync", "profile"), "read")]
)
def test_a_scope_that_is_missing_is_named(
    patient: Shell, server: SandboxServer, scopes: tuple[str, ...], missing: str
) -> None:
    server.sandbox.control("sell", "switch", {"scopes": list(scopes)})
    lines = examined(patient, 1)
    assert lines_with(lines, f"the token lacks the scope `{missing}`") == [("problem", "sell")]
    assert_read_only(server)


def test_a_key_that_may_do_too_much_is_a_warning(patient: Shell, server: SandboxServer) -> None:
    admin = server.sandbox.rally.keys.secret("admin")
    lines = examined(patient, 0, RALLY_API_KEY=admin)
    assert lines_with(lines, "scope admin") == [("warning", "rally")]


def test_a_key_that_may_not_read_the_feed_is_red(patient: Shell, server: SandboxServer) -> None:
    server.sandbox.control("rally", "switch", {"feed_scope": "admin"})
    lines = examined(patient, 1)
    assert lines_with(lines, "/sync/changes") == [("problem", "rally")]
    assert lines_with(lines, "may read the feed") == []


def test_what_is_half_configured_is_a_warning_that_names_the_rest(patient: Shell) -> None:
    lines = examined(patient, 0, RALLY_API_KEY="", SELL_DEVICE_UUID="", SIGNALSMITH_WORKSPACE_ID="")
    assert lines_with(lines, "set RALLY_API_KEY") == [("warning", "rally")]
    assert lines_with(lines, "SELL_DEVICE_UUID is missing") == [("warning", "sell")]
    assert lines_with(lines, "set SIGNALSMITH_WORKSPACE_ID") == [("warning", "signalsmith")]
    assert lines_with(lines, "the scopes read and profile") == [("ok", "sell")]


def test_another_tenant_account_or_device_than_the_warehouses_is_red(patient: Shell) -> None:
    from rally_pipeline.sell.device import Device
    from rally_pipeline.warehouse import Warehouse

    settings, device = patient.settings(), new_uuid()
    with Warehouse.open(settings.warehouse) as warehouse, warehouse.transaction("other") as tx:
        tx.set_state("rally.tenant", {"tenant_id": "another"})
        tx.set_state("sell.account", {"id": 1})
        Device(device, 1, tx.identity().id, proven=True).save(tx)
    lines = examined(patient, 1)
    assert lines_with(lines, "the warehouse mirrors tenant another") == [("problem", "rally")]
    assert lines_with(lines, "the warehouse mirrors account 1") == [("problem", "sell")]
    assert lines_with(lines, f"set SELL_DEVICE_UUID={device}") == [("problem", "sell")]
    missing = examined(patient, 1, SELL_DEVICE_UUID="")
    assert lines_with(missing, f"set SELL_DEVICE_UUID={device}") == [("warning", "sell")]
    assert lines_with(examined(patient, 1, SELL_DEVICE_UUID="my-host"), "not a UUID") == [("problem", "sell")]


@pytest.mark.parametrize(("hours", "side"), [(-3, "behind that of"), (3, "ahead of that of")])
def test_a_clock_that_is_wrong_is_a_warning(
    patient: Shell, server: SandboxServer, hours: int, side: str
) -> None:
    clock = server.sandbox.clock.skewed(timedelta(hours=hours).total_seconds())
    found: list[Finding] = examine(patient.settings(), clock=clock)
    told = [one for one in found if one.subject == "clock"]
    assert len(told) == 3
    for one in told:
        assert one.verdict == "warning"
        assert f"3 h {side}" in one.text
        assert "no effect on cursors" in one.text


def test_a_server_that_never_answers_stops_no_other_check(patient: Shell) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        settings = patient.settings().model_copy(update={"rally_api_url": f"http://127.0.0.1:{port}/api/v1"})
        found = examine(settings, check_seconds=2.0)
    rally = [one for one in found if one.subject == "rally"]
    assert [one.verdict for one in rally] == ["problem"]
    assert any("the token opens workspace" in one.text for one in found)


def test_a_setting_that_cannot_be_used_is_a_problem_and_the_rest_is_looked_at(patient: Shell) -> None:
    lines = examined(patient, 1, RALLY_FEED_START="yesterday", REQUESTS_CA_BUNDLE="/does/not/exist.pem")
    assert lines_with(lines, "RALLY_FEED_START") == [("problem", "settings")]
    assert lines_with(lines, "REQUESTS_CA_BUNDLE") == [("problem", "certificates")]


def test_the_way_out_is_told_without_its_password(patient: Shell) -> None:
    lines = examined(
        patient,
        1,
        RALLY_API_URL="https://acme.rallycrm.example/api/v1",
        HTTPS_PROXY="http://user:canary-pass-word@127.0.0.1:9",
    )
    assert lines_with(lines, "rally: 127.0.0.1:9 (HTTPS_PROXY, with user and password)") == [("ok", "proxy")]
    assert lines_with(lines, "sell: none, because") == [("ok", "proxy")]


def test_read_only_is_said(patient: Shell) -> None:
    lines = examined(patient, 0, RALLY_PIPELINE_READ_ONLY="true")
    assert lines_with(lines, "RALLY_PIPELINE_READ_ONLY=true") == [("ok", "settings")]


@pytest.mark.parametrize("command", ["doctor", "restored"])
def test_the_command_is_listed_and_explains_itself(shell: Shell, command: str) -> None:
    assert f"\n  {command} " in shell.say("--help").stdout
    said = shell.say(command, "--help")
    assert said.exit_code == 0
    assert len(said.stdout.splitlines()) > 5
