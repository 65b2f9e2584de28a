"""What is reachable from outside, and what a person in Dagster's UI may say: as little as possible."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rally_pipeline.cli import main
from rally_pipeline.cli.dev import services
from rally_pipeline.rally import changes, deletes, extract, looks
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rooms import build
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sell import drain, mirror
from rally_pipeline.settings import load_settings
from tests.contents import contents
from tests.rally.conftest import MakeWorld
from tests.sell.conftest import MakeWorld as MakeSellWorld

ROOT = Path(__file__).parents[2]


@pytest.mark.security("30")
def test_the_ui_is_started_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(
        services, "start_child", lambda _stack, _name, command, _environment: commands.append(command)
    )
    with ExitStack() as stack:
        services._start_dagster(stack, 3000, {})
    (command,) = commands
    assert command[command.index("-h") + 1] == "127.0.0.1"
    assert services.HOST == "127.0.0.1"


@pytest.mark.security("30", "33")
def test_no_command_has_an_option_to_listen_elsewhere() -> None:
    options = {
        name: [flag for parameter in command.params for flag in parameter.opts]
        for name, command in main.commands.items()
    }
    assert {
        name: flags for name, flags in options.items() if {"--host", "-h", "--bind", "--address"} & set(flags)
    } == {}
    assert {"dev", "sandbox"} <= options.keys()


@pytest.mark.security("30")
def test_production_is_told_to_listen_on_loopback() -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    commands = re.findall(r"`(dagster[^`]*(?:-h|--host) [^`]*)`", text)
    assert len(commands) >= 2
    assert all("-h 127.0.0.1" in command for command in commands)
    assert "0.0.0.0" not in "".join(path.read_text() for path in (ROOT / "deploy").iterdir())


@pytest.mark.security("31")
def test_the_proxy_snippet_checks_login_host_origin_and_method() -> None:
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    first, second = re.split(r"^server \{", text, flags=re.MULTILINE)[1:]
    assert "default_server" in first
    assert "return 403;" in first
    assert "auth_basic_user_file" in second
    assert re.search(r"if \(\$rally_pipeline_foreign_origin\) \{\s+return 403;", second)
    (allowed,) = re.findall(r'if \(\$rally_pipeline_get ~\* "([^"]+)"\) \{\s+return 403;', second)
    refused = re.compile(allowed, re.IGNORECASE)
    assert refused.search("GET:")  # a mutation in the query string of a plain GET
    assert refused.search("PUT:")
    assert not refused.search("POST:")
    assert not refused.search("GET:websocket")
    origins = dict(re.findall(r'^\s+(default|"[^"]*") (\d);', text, re.MULTILINE))
    assert origins["default"] == "1"
    assert [name for name, refusal in origins.items() if refusal == "0"] == [
        '""',
        '"https://dagster.example.com"',
    ]


HARMLESS = {
    "accept_shortfall",  # of an export: it writes a file of its own and nothing else
    "check_links", "encoding", "format", "guard_formulas", "heal", "keep_days", "restart", "updated_only", "wait",
    "days", "dry_run",
}  # fmt: skip


@pytest.mark.security("31", "50")
def test_no_run_config_can_overrule_a_guard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sandbox = Sandbox(seed=1, records=5)
    for name, value in sandbox.environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    definitions = build(load_settings(rally_pipeline_home=tmp_path), announce=False)
    fields: set[str] = set()
    for job in definitions.resolve_all_job_defs():
        for node in job.all_node_defs:
            schema = node.config_field
            if schema is not None and hasattr(schema.config_type, "fields"):
                fields |= set(schema.config_type.fields)
    assert {"heal", "restart", "wait"} <= fields
    suspicious = re.compile(
        r"allow|force|confirm|override|erase|accept|delete|guard_(?!formulas)|ignore|skip"
    )
    assert {name for name in fields if suspicious.search(name)} <= {"accept_shortfall"}
    assert fields <= HARMLESS


@pytest.mark.security("45")
def test_a_key_that_may_only_read_is_enough_for_the_mirror(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records=40)
    world.http._headers["X-Api-Key"] = world.sandbox.rally.key("read")
    world.extract()
    world.pass_time(60)
    world.sandbox.rally.mutate(20)
    world.pass_time(60)
    world.catch_up()
    assert world.differences() == []
    assert {entry.method for entry in world.sandbox.log} == {"GET"}


class GuardBroke(Exception):
    """What no caller expects."""


def broken(*_: object, **__: object) -> Any:
    raise GuardBroke


GUARDS = [
    (extract, "check_tenant"),
    (extract, "check_base"),
    (extract, "check_resumable"),
    (extract, "OpenMarks"),
    (extract.PassCoverage, "check"),
    (changes, "check_step"),
    (changes, "check_marked"),
    (looks, "check_evidence"),
    (looks, "check_settled"),
    (deletes.DeleteGuard, "check"),
    (deletes.DeleteGuard, "check_found"),
]


@pytest.mark.security("50")
@pytest.mark.parametrize(("owner", "name"), GUARDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_guard_that_breaks_stops_the_mirror(
    make_sqlite_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    world = make_sqlite_world(records={"contacts": 10})
    world.extract([Entity.CONTACTS])
    world.pass_time(60)
    ids = world.sandbox.rally.ids("contacts")
    world.sandbox.rally.delete("contacts", ids[0])
    world.sandbox.rally.update("contacts", ids[1], {"lastName": "New"})
    world.pass_time(60)
    if owner in (looks, deletes.DeleteGuard):
        world.mirror.read_changes()
    before = world.rows(Entity.CONTACTS)
    monkeypatch.setattr(owner, name, broken)
    act = {
        extract: lambda: world.mirror.extract(Entity.CONTACTS),
        extract.PassCoverage: lambda: world.mirror.extract(Entity.CONTACTS),
        changes: world.mirror.read_changes,
    }.get(owner, lambda: world.mirror.settle(Entity.CONTACTS))
    with pytest.raises(GuardBroke):
        act()
    assert world.rows(Entity.CONTACTS) == before


SELL_GUARDS = [(mirror.devices, "check_device"), (drain, "check_first_items"), (drain, "check_uuid")]


@pytest.mark.security("50")
@pytest.mark.parametrize(("owner", "name"), SELL_GUARDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_guard_that_breaks_stops_the_drain(
    make_sell_world: MakeSellWorld, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    world = make_sell_world()
    before = contents(world.warehouse)
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(GuardBroke):
        world.drain()
    tables = {"sell_leads", "sell_contacts", "sell_queue_items", "sell_pending_acks"}
    after = contents(world.warehouse)
    assert {name: after[name] for name in tables} == {name: before[name] for name in tables}
    assert world.requests("/sync/ack") == 0
