"""A small world for drain tests: the sandbox in process, a virtual clock, a real warehouse, and the real engines."""

from __future__ import annotations

import uuid
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Table, delete, select

from rally_pipeline.clock import Step, no_step
from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.token_budget import TokenBudget
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.sell import SellApi
from rally_pipeline.sandbox.transport import SandboxTransport
from rally_pipeline.sell.client import RATES, RETRIES, SellClient
from rally_pipeline.sell.device import DeviceClaims
from rally_pipeline.sell.entities import Entity, FieldType
from rally_pipeline.sell.mirror import SellMirror
from rally_pipeline.sell.policy import SellPolicy
from rally_pipeline.sell.results import DrainResult, SettleResult
from rally_pipeline.sell.tables import ENTITY_TABLES, failed_objects, metadata, queue_items, suspects
from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse import Warehouse, WarehouseError
from rally_pipeline.warehouse.tables import quarantine, sync_state
from rally_pipeline.warehouse.values import decimal_text, instant_text

BASE_URL = "http://127.0.0.1/sell"


DEFAULTS: dict[str, Any] = {"staleness_seconds": 0, "empty_pause_seconds": 0.1, "prefetch": False}
"""One thread, so that the n-th step is the same step every time."""


class Crash(BaseException):
    """The process dies here. Not an Exception, so nothing can handle it."""


class World:
    """One account, one warehouse, one clock. `crash_at(n)` makes the n-th step from now the last one."""

    def __init__(
        self, url: str, sandbox: Sandbox, *, uuid: str | None = None, home: Path | None = None, **policy: Any
    ):
        self.url = url
        self.sandbox = sandbox
        self.clock = sandbox.clock
        self.uuid = uuid or sandbox.sell.device_uuid
        self.home = home
        self.steps: list[str] = []
        self._crash_at: int | None = None
        self.commits_to_fail = 0
        self.policy = self.policy_of(**policy)
        self.open()

    @staticmethod
    def policy_of(**policy: Any) -> SellPolicy:
        return SellPolicy(**{**DEFAULTS, **policy})

    @property
    def api(self) -> SellApi:
        found: SellApi = self.sandbox.sell
        return found

    def open(self) -> None:
        """A new process: new client, new warehouse handle, same database."""
        self.warehouse = Warehouse.open(self.url, clock=self.clock, step=self.step, home=self.home)
        self.http = HttpClient(
            system="sell",
            base_url=BASE_URL,
            headers={"Authorization": f"Bearer {self.api.token}"},
            secrets=[self.api.token],
            transport=SandboxTransport(self.sandbox),
            budget=TokenBudget(RATES, clock=self.clock),
            policy=RETRIES,
            clock=self.clock,
            random=Random(1),
            step=self.step,
        )
        claims = DeviceClaims(self.home / "sell-devices") if self.home is not None else None
        client = SellClient(self.http, device_uuid=self.uuid, clock=self.clock)
        self.mirror = SellMirror(self.warehouse, client, self.policy, claims=claims, clock=self.clock)
        self.mirror.prepare()

    def reopen(self, *, uuid: str | None = None) -> None:
        """The process ended, its lease ran out, and another one starts."""
        self.close()
        if self.clock.is_virtual:
            self.clock.advance(301)
        self.uuid = uuid or self.uuid
        self._crash_at = None
        self.open()

    def close(self) -> None:
        self.warehouse.close()
        self.http.close()

    def wipe(self, sandbox: Sandbox) -> None:
        """Another account and an empty warehouse, on the same tables."""
        self.reopen()
        with self.warehouse.transaction("wipe") as tx:
            for table in (*metadata.sorted_tables, sync_state, quarantine):
                tx.execute(delete(table))
        self.sandbox, self.clock, self.uuid = sandbox, sandbox.clock, sandbox.sell.device_uuid
        self.reopen()

    def step(self, name: str) -> None:
        """The hook of every call and commit."""
        self.steps.append(name)
        if self._crash_at is not None and len(self.steps) >= self._crash_at:
            raise Crash(name)
        if self.commits_to_fail and name == "sell.page:before-commit":
            self.commits_to_fail -= 1
            raise WarehouseError("the disk is full")

    def crash_at(self, number: int) -> None:
        """Die at the `number`-th step from now."""
        self._crash_at = len(self.steps) + number

    # ------------------------------------------------------------------ acting

    def drain(self) -> DrainResult:
        return self.mirror.drain()

    def settle(self, *, wait: bool = True) -> dict[Entity, SettleResult]:
        return self.mirror.settle(Entity, wait=wait)

    def catch_up(self) -> DrainResult:
        """One whole cycle, as the job does it."""
        result = self.drain()
        self.settle()
        return result

    def requests(self, path: str | None = None, **filters: Any) -> int:
        """Requests in the sandbox's log."""
        return len(self.sandbox.log.matching(api="sell", path=path, **filters))

    # ------------------------------------------------------------------ looking

    def rows(self, table: Table) -> list[dict[str, Any]]:
        with self.warehouse.reading() as tx:
            return [dict(row._mapping) for row in tx.execute(select(table))]

    def count(self, table: Table) -> int:
        return len(self.rows(table))

    def row(self, entity: Entity, object_id: object) -> dict[str, Any] | None:
        found = [row for row in self.rows(ENTITY_TABLES[entity]) if str(row["id"]) == str(object_id)]
        return found[0] if found and found[0]["_deleted_at"] is None else None

    def quarantined(self) -> list[dict[str, Any]]:
        return self.rows(quarantine)

    def fingerprint(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every Sell table, but for the times at which things were done."""
        taken = {}
        for table in metadata.sorted_tables:
            names = [name for name in table.columns.keys() if name not in ("_synced_at",)]  # noqa: SIM118
            rows = [tuple(repr(row[name]) for name in names) for row in self.rows(table)]
            taken[table.name] = sorted(rows)
        return taken

    def differences(self) -> list[str]:
        """Where the warehouse differs from the account, field by field; empty when they agree."""
        found: list[str] = []
        truth = self.api.truth()
        for entity in Entity:
            wanted = {
                _key(entity, record): expected(entity, record) for record in truth.get(entity.value, [])
            }
            stored = {
                str(row["id"]): comparable(row)
                for row in self.rows(ENTITY_TABLES[entity])
                if row["_deleted_at"] is None
            }
            found += [f"missing {entity} {key}" for key in wanted.keys() - stored.keys()]
            found += [f"extra {entity} {key}" for key in stored.keys() - wanted.keys()]
            for key in wanted.keys() & stored.keys():
                names = [name for name in wanted[key] if wanted[key][name] != stored[key].get(name)]
                found += [
                    f"stale {entity} {key} {name}: {stored[key].get(name)!r} for {wanted[key][name]!r}"
                    for name in names
                ]
        return found

    def unsettled(self) -> list[str]:
        """What a quiet source must not leave behind."""
        status = self.mirror.status()
        left = [f"{table.table}: {table.open_marks} marks" for table in status.tables if table.open_marks]
        left += [f"{row}" for row in (*self.rows(suspects), *self.rows(failed_objects))]
        if status.acks_pending:
            left.append(f"{status.acks_pending} pages not acknowledged")
        if status.quarantined:
            left.append(f"{status.quarantined} quarantined")
        return left

    def landed(self, kind: str, object_id: object) -> list[dict[str, Any]]:
        return [row for row in self.rows(queue_items) if row["type"] == kind and row["id"] == str(object_id)]


def plain_client(environment: dict[str, str], *, step: Step = no_step) -> HttpClient:
    """A client over real sockets, without a rate budget."""
    token = environment["SELL_ACCESS_TOKEN"]
    return HttpClient(
        system="sell",
        base_url=environment["SELL_API_URL"],
        headers={"Authorization": f"Bearer {token}"},
        secrets=[token],
        policy=RETRIES,
        step=step,
    )


def new_uuid() -> str:
    return str(uuid.uuid4())


def soft() -> dict[str, Any]:
    return {"delete_mode": DeleteMode.SOFT}


def _key(entity: Entity, record: dict[str, Any]) -> str:
    if entity is Entity.ASSOCIATED_CONTACTS:
        return f"{record['deal_id']}:{record['contact_id']}"
    return str(record["id"])


def expected(entity: Entity, record: dict[str, Any]) -> dict[str, Any]:
    """The record as the table should hold it, worked out without the code under test."""
    types = {field.name: field.type for field in entity.fields}
    row: dict[str, Any] = {}
    for name, value in record.items():
        if name in ("id", "stages"):
            continue
        kind = types[name]
        row[name] = value
        if value is not None and kind is FieldType.INSTANT:
            row[name] = instant_text(value)
        elif value is not None and kind is FieldType.DECIMAL:
            row[name] = decimal_text(Decimal(str(value)))
    return row


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    shown = {}
    for name, value in row.items():
        shown[name] = value
        if isinstance(value, Decimal):
            shown[name] = decimal_text(value)
        elif hasattr(value, "tzinfo"):
            shown[name] = instant_text(value)
    return shown
