"""Real processes that are told to stop, or that run out of memory: a clean end, and the next run ends equal."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster  # noqa: F401 (once, and not in each child)
import pytest

from rally_pipeline.rally.connection import open_mirror
from rally_pipeline.rally.entities import Entity
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from rally_pipeline.settings import load_settings
from rally_pipeline.warehouse import LeaseHeld
from tests.cli.conftest import Shell
from tests.rally.world import World
from tests.warehouse.processes import run_in_processes

ENOUGH_SECONDS = 120
"""Within which a process must have come as far as a test wants it, on a busy machine."""


@pytest.fixture
def shell(sqlite_url: str) -> Iterator[tuple[Shell, SandboxServer]]:
    """A command line that is connected to a served sandbox with a few hundred records."""
    sandbox = Sandbox(records=200, clock=SandboxClock.running(), limit_per_minute=None, apis=["rally"])
    sandbox.rally.switch(max_limit=8)
    folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
    with SandboxServer(sandbox) as server:
        made = Shell(folder, {n: v for n, v in server.environment().items() if n.startswith("RALLY")})
        made.variables |= {"RALLY_STALENESS_SECONDS": "0", "WAREHOUSE_URL": sqlite_url}
        yield made, server


def fork(work: Callable[[], int], said: Path) -> int:
    """A child that does `work` and ends with its exit code, whatever happens; its process number.

    `said` gets what it writes to standard error.
    """
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
        sys.stderr = os.fdopen(2, "w")
        code = work()
        sys.stderr.flush()
    finally:
        os._exit(code)


def assert_next_run_ends_equal(shell: Shell, server: SandboxServer) -> None:
    """The next run finishes what was begun."""
    server.sandbox.rally.switch(max_limit=1_000)
    with open_mirror(shell.settings()) as mirror:
        for entity in Entity:
            mirror.extract(entity)
        mirror.read_changes()
        for entity in Entity:
            mirror.settle(entity)
    world = World(shell.variables["WAREHOUSE_URL"], server.sandbox)
    assert world.differences() == []
    assert world.marks() == []
    world.close()


@pytest.mark.fault("P2")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sync_that_is_told_to_stop_stops_soon_with_exit_code_1(
    shell: tuple[Shell, SandboxServer], number: signal.Signals
) -> None:
    command, server = shell

    def sync() -> int:
        from rally_pipeline.cli import main

        os.environ |= command.environment()
        os.chdir(command.folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            main(["sync", "rally"])
        except SystemExit as end:
            return int(end.code or 0)
        return 98

    said = command.folder / "said"
    child = fork(sync, said)
    deadline = time.monotonic() + ENOUGH_SECONDS
    while len(server.sandbox.log) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(server.sandbox.log) >= 12
    os.kill(child, number)
    asked = len(server.sandbox.log)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert len(server.sandbox.log) <= asked + 10
    assert (
        said.read_text()
        .splitlines()[-1]
        .endswith("told to stop; what was committed stays, the next run goes on from there")
    )
    assert_next_run_ends_equal(command, server)


@pytest.mark.fault("P4")
def test_of_eight_runs_at_once_each_works_or_skips_and_nothing_is_doubled(warehouse_url: str) -> None:
    sandbox = Sandbox(records=80, clock=SandboxClock.running(), limit_per_minute=None, apis=["rally"])
    sandbox.rally.switch(max_limit=10)
    with SandboxServer(sandbox) as server:
        settings = load_settings(
            warehouse_url=warehouse_url,
            rally_staleness_seconds=0,
            **{name.lower(): value for name, value in server.environment().items()},
        )

        def run() -> None:
            with open_mirror(settings) as mirror:
                parts: list[Any] = [partial(mirror.extract, entity) for entity in Entity]
                parts += [mirror.read_changes, *(partial(mirror.settle, entity) for entity in Entity)]
                for part in parts:
                    with contextlib.suppress(LeaseHeld):
                        part()

        assert run_in_processes(8, run) == [0] * 8
        sandbox.rally.mutate(20)
        sandbox.clock.advance(400)
        run()
        world = World(warehouse_url, sandbox)
        assert world.differences() == []
        assert world.marks() == []
        world.close()


@pytest.mark.fault("P5")
@pytest.mark.parametrize("megabytes", [1, 10, 25])
def test_a_process_that_runs_out_of_memory_ends_by_itself_and_loses_nothing(
    shell: tuple[Shell, SandboxServer], megabytes: int
) -> None:
    """A page of fifty megabytes, and less room than that."""
    command, server = shell
    settings = command.settings()
    rally = server.sandbox.rally
    rally.switch(max_limit=100)
    for victim in rally.ids("contacts")[:40]:
        rally.distort("contacts", victim, set={"notes": "x" * 1_200_000})

    def extract() -> int:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (held, most))
        # What earlier tests have left free in the parent's heap is no part of the room.
        used_up: list[bytearray] = []
        with contextlib.suppress(MemoryError):
            while True:
                used_up.append(bytearray(2**20))
        resource.setrlimit(resource.RLIMIT_AS, (held + megabytes * 2**20, most))
        try:
            with open_mirror(settings) as mirror:
                for entity in Entity:
                    mirror.extract(entity)
        except Exception as error:  # noqa: BLE001 (any kind of a clean failure)
            os.write(2, type(error).__name__.encode())
            return 3
        return 0

    said = command.folder / "said"
    _, status = os.waitpid(fork(extract, said), 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert said.read_text() in ("MemoryError", "WarehouseError", "NoAnswer")
    for victim in rally.ids("contacts")[:40]:
        rally.restore("contacts", victim)
    assert_next_run_ends_equal(command, server)
