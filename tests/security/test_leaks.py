"""Secrets and people's data stay where they belong: every path on which something leaves a run is searched for them."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.errors import ApiError
from rally_pipeline.http.retry import RetryPolicy
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.faults import FAULTS
from rally_pipeline.sandbox.server import SandboxServer
from rally_pipeline.sandbox.transport import SandboxTransport
from rally_pipeline.sell.tables import queue_items
from rally_pipeline.warehouse import Warehouse
from tests.canaries import found_below, found_in
from tests.cli.conftest import Shell
from tests.http.fakes import KEY
from tests.rally.conftest import MakeWorld
from tests.sell.conftest import MakeWorld as MakeSellWorld

PERSON = "canary.person@example.com"
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: what is in the files is looked at, not how they survive."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as made:
        yield Path(made)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every host that this process connects to or asks for."""
    hosts: set[str] = set()
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def watched(self: socket.socket, address: Any) -> None:
        hosts.add(str(address[0]) if isinstance(address, tuple) else "local socket")
        connect(self, address)

    def asked(host: Any, *more: Any, **options: Any) -> Any:
        hosts.add(str(host))
        return resolve(host, *more, **options)

    monkeypatch.setattr(socket.socket, "connect", watched)
    monkeypatch.setattr(socket, "getaddrinfo", asked)
    return hosts


@pytest.mark.security("11", "13", "14", "40")
def test_no_file_and_no_output_of_a_run_holds_a_key_and_only_loopback_is_called(
    folder: Path, called: set[str]
) -> None:
    with SandboxServer(Sandbox(seed=3, records=40, clock=SandboxClock.running())) as server:
        pace = {"RALLY_STALENESS_SECONDS": "0", "RALLY_FEED_OVERLAP_SECONDS": "30"}
        shell = Shell(folder, {**server.environment(), **pace})
        outputs = [
            shell.say(*words).output for words in (("sync", "rally", "sell"), ("signalsmith", "refresh"))
        ]
        server.sandbox.faults.add("unauthorized", api="rally", times=None)
        outputs += [shell.say("sync", "rally").output, shell.say("status").output]
        log = "".join(str(entry.as_dict()) for entry in server.sandbox.log)
    assert len(found_in("".join(shell.variables.values()))) == 3
    assert "RALLY_API_KEY" in outputs[2]
    assert found_in("".join(outputs) + log) == []
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"warehouse.db", "runs.db"} <= names
    assert found_below(folder) == {}
    assert called & LOOPBACK
    assert called <= {*LOOPBACK, "local socket"}


@pytest.mark.security("12")
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_no_error_of_any_fault_shows_the_key(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sandbox = Sandbox(seed=1, records={"contacts": 3}, apis=["rally"])
    key = sandbox.environment("http://127.0.0.1")["RALLY_API_KEY"]
    http = HttpClient(
        system="rally",
        base_url="http://127.0.0.1/rally/api/v1",
        headers={"X-Api-Key": key},
        secrets=[key],
        transport=SandboxTransport(sandbox),
        clock=sandbox.clock,
        policy=RetryPolicy(max_attempts=2),
    )
    sandbox.faults.add(fault, times=None)
    client = RallyClient(http, clock=sandbox.clock)
    told = [repr(http), repr(client)]
    try:
        client.list_page(Entity.CONTACTS, offset=0, limit=10)
    except ApiError as error:
        told += [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
    assert found_in("".join(told) + caplog.text) == []


@pytest.mark.security("11")
def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    hidden = Sandbox(seed=1, records=1).environment("http://127.0.0.1")
    secrets = [hidden[name] for name in ("RALLY_API_KEY", "SELL_ACCESS_TOKEN", "SIGNALSMITH_API_TOKEN")]
    for secret in [*secrets, KEY]:
        assert len(found_in(f"before {secret} after")) == 1
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "x.bin").write_bytes(b"\x00\xff" + secrets[0].encode() + b"\x00")
    assert list(found_below(tmp_path)) == ["below/x.bin"]


@pytest.mark.security("11")
def test_a_test_that_shows_a_secret_fails(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.canaries import pytest_runtest_makereport\n")
    (tmp_path / "test_both.py").write_text(
        f"def test_quiet(): print('nothing')\ndef test_loud(): print('{KEY}')\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(tmp_path),
    ]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in done.stdout
    assert "test_loud: the output of the test shows" in done.stdout


@pytest.mark.security("17")
def test_no_log_line_holds_what_a_record_says(
    make_sqlite_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="rally_pipeline")
    world = make_sqlite_world(records={"contacts": 20})
    ids = [record["id"] for record in world.sandbox.rally.records("contacts")]
    for place, contact in enumerate(ids):
        world.sandbox.rally.update("contacts", contact, {"email": f"{place}.{PERSON}"})
    world.sandbox.rally.distort("contacts", ids[0], raw={"lastName": f'"{PERSON}", NaN'})
    world.extract([Entity.CONTACTS])
    world.pass_time(60)
    world.sandbox.rally.update("contacts", ids[1], {"lastName": PERSON})
    world.sandbox.rally.delete("contacts", ids[2])
    world.sandbox.faults.add("status_500", times=2)
    world.catch_up()
    assert PERSON in str(world.rows(Entity.CONTACTS))
    assert PERSON not in caplog.text


@pytest.mark.security("36")
def test_a_person_deleted_at_the_source_is_in_no_file_of_the_mirror(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 20})
    ids = [record["id"] for record in world.sandbox.rally.records("contacts")]
    stored, refused = ids[:2]
    world.sandbox.rally.update("contacts", stored, {"email": PERSON, "lastName": PERSON})
    world.sandbox.rally.update("contacts", refused, {"email": f"other.{PERSON}"})
    world.sandbox.rally.distort("contacts", refused, append='"lastName": "x"')
    world.extract([Entity.CONTACTS])
    world.pass_time(60)
    world.catch_up()
    with world.warehouse.reading() as tx:
        assert PERSON in "".join(item.raw for item in tx.quarantined(Entity.CONTACTS.stream))
    for contact in (stored, refused):
        world.sandbox.rally.restore("contacts", contact)
        world.sandbox.rally.delete("contacts", contact)
    world.pass_time(60)
    world.catch_up()
    assert world.differences() == []
    assert bytes_of(world.warehouse, world.url).count(PERSON.encode()) == 0


@pytest.mark.security("36")
def test_a_person_deleted_in_sell_is_in_no_file_of_the_mirror(make_sell_world: MakeSellWorld) -> None:
    world = make_sell_world()
    leads = list(world.api.world.live("lead"))[:2]
    for lead in leads:
        world.api.world.update("lead", lead.id, {"email": PERSON})
    unknown = {
        "data": {"id": int(leads[1].id), "email": PERSON},
        "meta": {"type": "lead", "sync": {"event_type": "merged", "ack_key": "Lead-x-9", "revision": 1}},
    }
    world.sandbox.control("sell", "inject", {"item": unknown, "ack_key": "Lead-x-9"})
    world.drain()
    for lead in leads:
        world.api.world.delete("lead", lead.id)
    world.catch_up()
    assert world.differences() == []
    assert bytes_of(world.warehouse, world.url).count(PERSON.encode()) == 0


@pytest.mark.security("39")
def test_landed_items_are_forgotten_after_their_retention(make_sell_world: MakeSellWorld) -> None:
    world = make_sell_world(policy={"retention_days": 30})
    world.catch_up()
    landed = world.mirror.landed_items()
    world.clock.advance(29 * 86_400)
    world.catch_up()
    assert world.mirror.landed_items() == landed
    world.clock.advance(2 * 86_400)
    world.catch_up()
    kept = world.rows(queue_items)
    assert len(kept) < landed / 5
    assert all(row["payload"] for row in kept)  # nothing else says what they say
    assert world.differences() == []


def bytes_of(warehouse: Warehouse, url: str) -> bytes:
    """Every byte of the warehouse's files, once it is closed."""
    warehouse.close()
    folder = Path(url.removeprefix("sqlite:///")).parent
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
