"""Draining the Sell queue: this package against the official client `basecrm`, with the same database writes.

    python benchmarks/sell_drain.py [--items 100000] [--page-size 100] [--clients ours,pagewise,itemwise]

Each client drains the same simulated account over HTTP (a server in a process of its own, rate limits off) into a
fresh SQLite warehouse with durable commits:

- `ours`: `SellMirror.drain`.
- `pagewise`: basecrm's service calls (start, fetch, ack), and each page written by this package's own page writer in
  one transaction before its acknowledgement. The most favourable way to use basecrm; it has to be built by hand.
- `itemwise`: basecrm's `Sync.fetch(callback)` as its documentation shows it. It acknowledges when the callbacks of a
  page have returned and has no hook between pages, so a callback that must not lose an item commits it at once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec


def serve(items: int, page_size: int, ready: Any, stop: Any) -> None:
    """A sandbox with `items` objects; tells its environment, and serves until told to stop."""
    from rally_pipeline.sandbox.application import Sandbox
    from rally_pipeline.sandbox.clock import SandboxClock
    from rally_pipeline.sandbox.server import SandboxServer

    options = {
        "records": items - 2,
        "page_size": page_size,
        "limit_per_second": None,
        "limit_per_hour": None,
    }
    sandbox = Sandbox(seed=1, apis=["sell"], log_limit=1, clock=SandboxClock.running(), sell=options)
    with SandboxServer(sandbox) as server:
        ready.put(server.environment())
        stop.get()


def drain_ours(environment: dict[str, str], url: str) -> dict[str, int]:
    """The package's own drain, without the rate budget that production keeps."""
    from rally_pipeline.http.client import HttpClient
    from rally_pipeline.sell.client import SellClient
    from rally_pipeline.sell.mirror import SellMirror
    from rally_pipeline.sell.policy import SellPolicy
    from rally_pipeline.warehouse import Warehouse

    token = environment["SELL_ACCESS_TOKEN"]
    headers = {"Authorization": f"Bearer {token}"}
    with (
        HttpClient(system="sell", base_url=environment["SELL_API_URL"], headers=headers) as http,
        Warehouse.open(url) as warehouse,
    ):
        mirror = SellMirror(warehouse, SellClient(http, device_uuid=str(uuid4())), SellPolicy())
        mirror.prepare()
        result = mirror.drain()
    return {"items": result.tally.items, "requests": result.cost.requests}


def _basecrm(environment: dict[str, str]) -> Any:
    import basecrm

    token = environment["SELL_ACCESS_TOKEN"]
    return basecrm.Client(access_token=token, base_url=environment["SELL_API_URL"])


def drain_pagewise(environment: dict[str, str], url: str) -> dict[str, int]:
    """basecrm's calls, this package's page writer."""
    from rally_pipeline.warehouse import Warehouse

    client, uuid = _basecrm(environment), str(uuid4())
    items = requests = 0
    with Warehouse.open(url) as warehouse:
        write = _PageWriter(warehouse)
        session = client.sync.start(uuid)
        while page := client.sync.fetch(uuid, session.id):
            write(page)
            client.sync.ack(uuid, [item.meta.sync.ack_key for item in page])
            items += len(page)
            requests += 2
    return {"items": items, "requests": requests + 2}


def drain_itemwise(environment: dict[str, str], url: str) -> dict[str, int]:
    """basecrm's documented flow; every item is durable before the callback says that it is."""
    import basecrm

    from rally_pipeline.warehouse import Warehouse

    client = _basecrm(environment)
    items = 0
    with Warehouse.open(url) as warehouse:
        write = _PageWriter(warehouse)

        def store(meta: Any, data: Any) -> bool:
            nonlocal items
            write([{"meta": meta, "data": data}])
            items += 1
            return bool(basecrm.Sync.ACK)

        basecrm.Sync(client=client, device_uuid=str(uuid4())).fetch(store)
    return {"items": items, "requests": 0}


class _PageWriter:
    """Writes decoded items with the package's own page writer, one transaction a call."""

    def __init__(self, warehouse: Any) -> None:
        from rally_pipeline.sell.tables import metadata

        self._warehouse = warehouse
        self._pages = 0
        warehouse.create_tables(metadata)

    def __call__(self, items: list[Any]) -> None:
        from datetime import UTC, datetime

        from rally_pipeline.sell.apply import PageApplier
        from rally_pipeline.sell.landing import PageMark
        from rally_pipeline.sell.queue import QueueItem, QueuePage
        from rally_pipeline.settings import DeleteMode

        page = QueuePage(
            [
                QueueItem(
                    item["meta"]["type"],
                    item["meta"]["sync"]["event_type"],
                    item["meta"]["sync"]["ack_key"],
                    item["meta"]["sync"]["revision"],
                    msgspec.Raw(json.dumps(item["data"]).encode()),
                )
                for item in items
            ],
            [],
            [],
            None,
        )
        self._pages += 1
        with self._warehouse.transaction("page") as tx:
            mark = PageMark(self._pages, 1, datetime.now(UTC))
            PageApplier(tx, mark, DeleteMode.HARD).apply(page)


CLIENTS = {"ours": drain_ours, "pagewise": drain_pagewise, "itemwise": drain_itemwise}


def measure(name: str, environment: dict[str, str], answer: Any) -> None:
    """Run one client in this (fresh) process and report seconds, items and memory."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'warehouse.db'}"
        begun, cpu = time.perf_counter(), time.process_time()
        found = CLIENTS[name](environment, url)
        seconds = time.perf_counter() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    answer.put(
        {"client": name, "seconds": seconds, "cpu": time.process_time() - cpu, "memory_mb": memory, **found}
    )


def main() -> None:
    """Measure each client against one server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--page-size", type=int, default=100)
    parser.add_argument("--clients", default="ours,pagewise,itemwise")
    options = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    ready, stop, answer = processes.Queue(), processes.Queue(), processes.Queue()
    server = processes.Process(target=serve, args=(options.items, options.page_size, ready, stop))
    server.start()
    try:
        environment = ready.get()
        for name in options.clients.split(","):
            client = processes.Process(target=measure, args=(name, environment, answer))
            client.start()
            client.join()
            if client.exitcode:
                raise SystemExit(f"{name} failed")
            row = answer.get()
            rate = row["items"] / row["seconds"]
            print(
                f"{row['client']:>9}: {row['items']:>7,} items in {row['seconds']:7.1f} s ({row['cpu']:6.1f} s CPU),"
                f" {rate:8,.0f} items/s, {row['memory_mb']} MB, {row['requests']:,} requests",
                flush=True,
            )
    finally:
        stop.put(None)
        server.join()


if __name__ == "__main__":
    main()
