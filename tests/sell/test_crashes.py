"""The process dies at every step, also in recovery: the next run ends equal to the account, nothing lost or doubled."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from rally_pipeline.sell.client import SellClient
from rally_pipeline.sell.mirror import SellMirror
from rally_pipeline.warehouse import Warehouse, WarehouseError
from tests.sell.conftest import MakeWorld
from tests.sell.world import Crash, World, plain_client

# A failed object has no key, so a server that forgets it at once loses it with a page that was never committed.
OPTIONS = {"records": 34, "page_size": 16, "limit_per_second": None, "redeliver_failed": True}


def story(world: World) -> None:
    """A first sync and a second one with deletes, a revival, a failed object and an old state."""
    world.catch_up()
    api = world.api
    leads = list(api.world.live("lead"))
    api.world.delete("lead", leads[0].id)
    api.world.update("contact", next(api.world.live("contact")).id)
    api.world.create("deal", {})
    if len(leads[1].versions) == 1:
        api.world.update("lead", leads[1].id)
        api.sync.redeliver(leads[1])
        api.sync.failing[leads[1].reference] = 1
    world.catch_up()


def finish(world: World) -> None:
    """The next run."""
    world.reopen()
    world.catch_up()


def assert_equal(world: World, *, crashes: int = 0) -> None:
    """Only a crash between a start and the note of it can leave a session behind."""
    assert world.differences() == []
    assert world.unsettled() == []
    assert len(world.api.sync.active(world.clock.now())) <= crashes


def _points(world: World) -> list[int]:
    """Every step of the story after which something is different: a request was answered, a commit is near or done.

    The steps left out come before a request or a transaction: dying there is dying right after the step before.
    """
    before = len(world.steps)
    story(world)
    assert_equal(world)
    steps = world.steps[before:]
    return [number for number, name in enumerate(steps, 1) if name.endswith((":after", "-commit"))]


def _survives(world: World, points: list[int]) -> None:
    """Crash at each of the points in turn (counted from the last restart), then finish."""
    for point in points:
        world.crash_at(point)
        with pytest.raises(Crash):
            story(world)
        world.reopen()
    world.catch_up()
    assert_equal(world, crashes=len(points))


@pytest.mark.fault("S1")
@pytest.mark.parametrize("part", range(4))
def test_a_crash_at_every_step_on_sqlite(make_sqlite_worlds: MakeWorld, part: int) -> None:
    points = _points(make_sqlite_worlds(**OPTIONS))
    assert len(points) > 40
    for point in points[part::4]:
        world = make_sqlite_worlds(**OPTIONS)
        _survives(world, [point])
        world.close()


@pytest.mark.fault("S1")
def test_a_crash_at_steps_all_over_on_postgresql(make_postgres_world: MakeWorld) -> None:
    world = make_postgres_world(**OPTIONS)
    for point in _points(world)[::12]:
        world.wipe(Sandbox(seed=1, apis=["sell"], sell=OPTIONS))
        _survives(world, [point])


def test_crashes_in_recovery(make_sqlite_worlds: MakeWorld) -> None:
    dice = Random(7)
    for _ in range(8):
        world = make_sqlite_worlds(**OPTIONS)
        _survives(world, [dice.randrange(1, 90), dice.randrange(1, 40), dice.randrange(1, 40)])
        world.close()


def test_a_crash_loop_uses_one_session(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records=400, page_size=10)
    for _ in range(30):
        world.crash_at(next_page_step(world))
        with pytest.raises(Crash):
            world.drain()
        world.reopen()
    assert len(world.api.sync.sessions) == 1
    world.catch_up()
    assert_equal(world)


def next_page_step(world: World) -> int:
    """A step shortly after the first page of the next run was fetched, before it is committed."""
    return 12


# ---------------------------------------------------------------------- a warehouse that does not commit


def test_a_failed_commit_leaves_the_session_and_acknowledges_nothing(make_world: MakeWorld) -> None:
    world = make_world()
    world.warehouse.close()
    commits = []

    def fail_third(name: str) -> None:
        if name == "sell.page:before-commit":
            commits.append(name)
            if len(commits) == 3:
                raise WarehouseError("the disk is full")

    world.warehouse = Warehouse.open(world.url, clock=world.clock, step=fail_third)
    world.mirror = SellMirror(
        world.warehouse, SellClient(world.http, device_uuid=world.uuid), world.policy, clock=world.clock
    )
    with pytest.raises(WarehouseError, match="disk is full"):
        world.drain()
    assert world.requests("/v2/sync/*/queues/main") == 3
    assert len(world.api.sync.acks) == 2
    finish(world)
    assert_equal(world)


# ---------------------------------------------------------------------- real processes


@pytest.fixture
def served() -> Iterator[tuple[Sandbox, SandboxServer]]:
    """A sandbox behind a socket, for processes of their own."""
    sandbox = Sandbox(seed=1, apis=["sell"], clock=SandboxClock.running(), sell=OPTIONS)
    with SandboxServer(sandbox) as server:
        yield sandbox, server


def drain_in_process(url: str, environment: dict[str, str], die_at: str, count: int) -> None:
    """Drain and settle nothing; SIGKILL this process at the `count`-th step whose name ends with `die_at`."""
    seen = 0

    def step(name: str) -> None:
        nonlocal seen
        seen += name.endswith(die_at)
        if seen == count and name.endswith(die_at):
            os.kill(os.getpid(), signal.SIGKILL)

    with Warehouse.open(url, step=step) as warehouse, plain_client(environment, step=step) as http:
        client = SellClient(http, device_uuid=environment["SELL_DEVICE_UUID"])
        mirror = SellMirror(warehouse, client, World.policy_of(prefetch=True))
        mirror.prepare()
        mirror.drain()


KILLS = [
    ("/queues/main:before", 2),
    ("/queues/main:after", 1),
    ("/queues/main:after", 2),
    ("/queues/main:after", 3),
    ("sell.page:begin", 2),
    ("sell.page:before-commit", 1),
    ("sell.page:before-commit", 3),
    ("sell.page:after-commit", 1),
    ("sell.page:after-commit", 2),
    ("/sync/ack:before", 1),
    ("/sync/ack:before", 3),
    ("/sync/ack:after", 1),
    ("/sync/ack:after", 2),
    ("/sync/start:after", 1),
    ("sell.session:before-commit", 1),
    ("sell.finish:before-commit", 1),
]


@pytest.mark.fault("S1", "P1")
@pytest.mark.parametrize(("die_at", "count"), KILLS)
def test_kill_9_between_fetch_commit_and_acknowledgement_on_sqlite(
    sqlite_url: str, served: tuple[Sandbox, SandboxServer], die_at: str, count: int
) -> None:
    survive_kill(sqlite_url, served, die_at, count)


@pytest.mark.fault("S1", "P1")
@pytest.mark.parametrize(("die_at", "count"), KILLS[1::3])
def test_kill_9_between_fetch_commit_and_acknowledgement_on_postgresql(
    postgres_url: str, served: tuple[Sandbox, SandboxServer], die_at: str, count: int
) -> None:
    survive_kill(postgres_url, served, die_at, count)


def survive_kill(warehouse_url: str, served: tuple[Sandbox, SandboxServer], die_at: str, count: int) -> None:
    """Kill a drain in a process of its own, run another one, and compare."""
    sandbox, server = served
    environment = server.environment()
    killed = run_process(warehouse_url, environment, die_at, count)
    assert killed == -signal.SIGKILL
    assert run_process(warehouse_url, environment, "never", 1) == 0
    world = World(warehouse_url, sandbox)
    assert world.differences() == []
    assert world.unsettled() == []
    assert sandbox.sell.sync.pending(sandbox.sell.sync.devices[sandbox.sell.device_uuid]) == []
    world.close()


def run_process(url: str, environment: dict[str, str], die_at: str, count: int) -> int | None:
    """The exit code of a drain in a process of its own."""
    process = multiprocessing.get_context("fork").Process(
        target=drain_in_process, args=(url, environment, die_at, count)
    )
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.fault("S10", "P4")
def test_two_drains_at_once_never_double_or_lose(
    warehouse_url: str, served: tuple[Sandbox, SandboxServer], tmp_path: Path
) -> None:
    sandbox, server = served
    environment = server.environment()
    world = World(warehouse_url, sandbox)
    forked = multiprocessing.get_context("fork")
    for _ in range(3):
        sandbox.sell.world.mutate(15)
        drains = [
            forked.Process(target=drain_in_process, args=(warehouse_url, environment, "never", 1))
            for _ in range(3)
        ]
        for drain in drains:
            drain.start()
        for drain in drains:
            drain.join(60)
        assert 0 in [drain.exitcode for drain in drains]
    assert run_process(warehouse_url, environment, "never", 1) == 0
    world.settle()
    assert world.differences() == []
    assert world.unsettled() == []
    world.close()
