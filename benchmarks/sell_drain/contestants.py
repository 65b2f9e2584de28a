"""The three clients; each drains the account into a fresh warehouse with durable commits."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import basecrm
import msgspec

from rally_pipeline.http.client import HttpClient
from rally_pipeline.sell.apply import PageApplier
from rally_pipeline.sell.client import SellClient
from rally_pipeline.sell.landing import PageMark
from rally_pipeline.sell.mirror import SellMirror
from rally_pipeline.sell.policy import SellPolicy
from rally_pipeline.sell.queue import QueueItem, QueuePage
from rally_pipeline.sell.tables import metadata
from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse import Warehouse


def drain_ours(*, environment: dict[str, str], database: str) -> dict[str, int]:
    """The package's own drain, without the rate budget that production keeps."""
    token = environment["SELL_ACCESS_TOKEN"]
    headers = {"Authorization": f"Bearer {token}"}
    with (
        HttpClient(system="sell", base_url=environment["SELL_API_URL"], headers=headers) as http,
        Warehouse.open(database) as warehouse,
    ):
        mirror = SellMirror(warehouse, SellClient(http, device_uuid=str(uuid4())), SellPolicy())
        mirror.prepare()
        result = mirror.drain()
    return {"items": result.tally.items}


def _basecrm(environment: dict[str, str]) -> Any:
    token = environment["SELL_ACCESS_TOKEN"]
    return basecrm.Client(access_token=token, base_url=environment["SELL_API_URL"])


def drain_pagewise(*, environment: dict[str, str], database: str) -> dict[str, int]:
    """basecrm's calls, this package's page writer."""
    client, uuid = _basecrm(environment), str(uuid4())
    items = 0
    with Warehouse.open(database) as warehouse:
        write = _PageWriter(warehouse)
        session = client.sync.start(uuid)
        while page := client.sync.fetch(uuid, session.id):
            write(page)
            client.sync.ack(uuid, [item.meta.sync.ack_key for item in page])
            items += len(page)
    return {"items": items}


def drain_itemwise(*, environment: dict[str, str], database: str) -> dict[str, int]:
    """basecrm's documented flow; every item is durable before the callback says that it is."""
    client = _basecrm(environment)
    items = 0
    with Warehouse.open(database) as warehouse:
        write = _PageWriter(warehouse)

        def store(meta: Any, data: Any) -> bool:
            nonlocal items
            write([{"meta": meta, "data": data}])
            items += 1
            return bool(basecrm.Sync.ACK)

        basecrm.Sync(client=client, device_uuid=str(uuid4())).fetch(store)
    return {"items": items}


class _PageWriter:
    """Writes decoded items with the package's own page writer, one transaction a call."""

    def __init__(self, warehouse: Any) -> None:
        self._warehouse = warehouse
        self._pages = 0
        warehouse.create_tables(metadata)

    def __call__(self, items: list[Any]) -> None:
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
