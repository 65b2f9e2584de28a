"""Long queues: flat memory, one acknowledgement a page, requests = pages + acknowledgements + 2.

`benchmarks/sell_drain.py` does the same with 100,000 items and against the official client.
"""

from __future__ import annotations

import multiprocessing
import tracemalloc
from multiprocessing.queues import SimpleQueue

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from rally_pipeline.sell.client import SellClient
from rally_pipeline.sell.mirror import SellMirror
from rally_pipeline.sell.tables import queue_items
from rally_pipeline.warehouse import Warehouse
from tests.sell.conftest import MakeWorld
from tests.sell.world import World, plain_client

ITEMS = 5_000
WARM_UP_PAGES = 20
ALLOWED_GROWTH_BYTES = 500_000


def drain_and_measure(url: str, environment: dict[str, str], answer: SimpleQueue) -> None:  # type: ignore[type-arg]
    """Drain in this process and tell the Python memory that was taken after the first pages and not given back.

    (The size of the process also grows by SQLite's page cache, up to its bound of 32 MB.)
    """
    kept: list[int] = []

    def note(*_: object) -> None:
        if len(kept) == WARM_UP_PAGES:
            tracemalloc.start()
        kept.append(tracemalloc.get_traced_memory()[0])

    with Warehouse.open(url) as warehouse, plain_client(environment) as http:
        client = SellClient(http, device_uuid=environment["SELL_DEVICE_UUID"])
        mirror = SellMirror(warehouse, client, World.policy_of(prefetch=True), progress=note)
        mirror.prepare()
        result = mirror.drain()
    answer.put((kept[-1], result.tally.items, result.pages, result.acks, result.cost.requests))


def test_a_long_queue_is_drained_in_flat_memory(sqlite_url: str) -> None:
    options = {"records": ITEMS, "page_size": 100, "limit_per_second": None, "limit_per_hour": None}
    sandbox = Sandbox(apis=["sell"], clock=SandboxClock.running(), log_limit=1, sell=options)
    forked = multiprocessing.get_context("fork")
    answer = forked.SimpleQueue()
    with SandboxServer(sandbox) as server:
        process = forked.Process(target=drain_and_measure, args=(sqlite_url, server.environment(), answer))
        process.start()
        kept, items, pages, acks, requests = answer.get()
        process.join()
    assert items == ITEMS + 2
    assert acks == pages == 51
    assert requests == pages + acks + 2
    assert kept < ALLOWED_GROWTH_BYTES


def test_a_run_stops_at_its_time_and_the_next_one_goes_on_without_a_new_session(
    make_world: MakeWorld,
) -> None:
    world = make_world(records=120, page_size=10, policy={"max_runtime_seconds": 4.0})
    world.sandbox.request_seconds = 0.5
    results = [world.drain()]
    while not results[-1].is_complete:
        assert results[-1].stopped_reason == "runtime"
        assert len(results) < 20
        results.append(world.drain())
    assert len(results) > 2
    assert sum(result.sessions for result in results) == 1
    assert sum(result.cost.requests for result in results) == 2 * sum(result.pages for result in results) + 2
    world.settle()
    assert world.differences() == []
    assert world.unsettled() == []


def test_prefetching_loses_nothing_and_asks_no_more(make_world: MakeWorld) -> None:
    world = make_world(records=120, page_size=10, policy={"prefetch": True})
    result = world.drain()
    assert result.cost.requests == result.pages + result.acks + 2
    world.settle()
    assert world.differences() == []


def test_landed_items_are_forgotten_after_their_time_but_for_only_copies(make_world: MakeWorld) -> None:
    world = make_world(unknown_type_records=2)
    world.catch_up()
    assert world.count(queue_items) == 47
    world.clock.advance(31 * 86_400)
    world.drain()
    assert [row["type"] for row in world.rows(queue_items)] == ["call_outcome"] * 2
    assert world.differences() == []
