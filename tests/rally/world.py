"""A small world for engine tests: the sandbox in process, a virtual clock, a real warehouse, and the real engines."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

from sqlalchemy import delete, select, update

from rally_pipeline.http.budget import HeaderBudget
from rally_pipeline.http.client import HttpClient
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.entities import Entity, FieldType
from rally_pipeline.rally.mirror import RallyMirror
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.tables import ENTITY_TABLES, dirty, metadata
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.transport import SandboxTransport
from rally_pipeline.warehouse import Warehouse
from rally_pipeline.warehouse.tables import leases, sync_state

KEY = "rk_test_reader"


class Crash(BaseException):
    """The process dies here. Not an Exception, so nothing can handle it."""


class World:
    """One tenant, one warehouse, one clock. `crash_at(n)` makes the n-th step from now the last one."""

    def __init__(self, url: str, sandbox: Sandbox, **policy: Any) -> None:
        self.url = url
        self.sandbox = sandbox
        self.clock = sandbox.clock
        self.steps: list[str] = []
        self._crash_at: int | None = None
        defaults = {
            "staleness_seconds": 0,
            "overlap_seconds": 60,
            "prefetch": False,
            "commit_pages": 1,
            "single_threads": 1,
        }
        self.policy = MirrorPolicy(**{**defaults, **policy})
        self.open()

    def open(self) -> None:
        """A new process: new client, new warehouse handle, same database."""
        self.warehouse = Warehouse.open(self.url, clock=self.clock, step=self.step)
        self.http = HttpClient(
            system="rally",
            base_url="http://127.0.0.1/rally/api/v1",
            headers={"X-Api-Key": self.sandbox.environment("http://127.0.0.1")["RALLY_API_KEY"]},
            transport=SandboxTransport(self.sandbox),
            budget=HeaderBudget(clock=self.clock),
            clock=self.clock,
            random=Random(1),
            step=self.step,
        )
        self.mirror = RallyMirror(
            self.warehouse, RallyClient(self.http, clock=self.clock), self.policy, clock=self.clock
        )
        self.mirror.prepare()

    def close(self) -> None:
        self.warehouse.close()

    def step(self, name: str) -> None:
        self.steps.append(name)
        if self._crash_at is not None:
            self._crash_at -= 1
            if self._crash_at <= 0:
                self._crash_at = None
                raise Crash(name)

    def crash_at(self, steps: int) -> None:
        self._crash_at = steps

    def survive(self) -> None:
        self._crash_at = None

    def restart(self) -> None:
        """What a new process finds after a crash."""
        self._crash_at = None
        self.warehouse.close()
        self.open()
        # A dead process is recognised by its id; this process lives on.
        with self.warehouse.transaction("bury") as tx:
            tx.execute(update(leases).values(holder=None))

    def forget(self) -> None:
        """Begin with an empty warehouse again, in the same database."""
        with self.warehouse.transaction("forget") as tx:
            for table in [*metadata.sorted_tables, sync_state]:
                tx.execute(delete(table))

    def extract(self, entities: Iterable[Entity] = tuple(Entity)) -> dict[Entity, Any]:
        return {entity: self.mirror.extract(entity) for entity in entities}

    def catch_up(self) -> tuple[Any, dict[Entity, Any]]:
        """Feed, then looks; a full extract where the feed demands one."""
        changes = self.mirror.read_changes()
        if changes.snapshot_required:
            self.extract()
        return changes, {entity: self.mirror.settle(entity) for entity in Entity}

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def requests(self, path: str | None = None) -> int:
        return len(self.sandbox.log.matching(path=path)) if path else len(self.sandbox.log)

    def marks(self) -> list[tuple[Any, ...]]:
        with self.warehouse.reading() as tx:
            return tx.rows(select(dirty))

    def rows(self, entity: Entity) -> dict[str, dict[str, Any]]:
        """The mirror table with natural Python values."""
        table = ENTITY_TABLES[entity]
        with self.warehouse.reading() as tx:
            found = tx.connection.execute(select(table)).mappings()
            return {row["id"]: dict(row) for row in found}

    def differences(self) -> list[str]:
        """Warehouse against truth, field by field, by rules of its own: nothing of the engine's decoding is used."""
        found: list[str] = []
        truth = self.sandbox.rally.truth()
        for entity in Entity:
            expected = {record["id"]: record for record in truth[entity.value]}
            stored = {key: row for key, row in self.rows(entity).items() if row["_deleted_at"] is None}
            found += [f"{entity.value} {key} is missing" for key in expected.keys() - stored.keys()]
            found += [f"{entity.value} {key} is extra" for key in stored.keys() - expected.keys()]
            for key in expected.keys() & stored.keys():
                found += [
                    f"{entity.value} {key}: {text}" for text in _unlike(entity, expected[key], stored[key])
                ]
        return found


def _unlike(entity: Entity, record: dict[str, Any], row: dict[str, Any]) -> list[str]:
    differing = []
    rest = dict(record)
    for field in entity.fields:
        said = rest.pop(field.name, None)
        if _natural(field.type, said) != row[field.column]:
            differing.append(f"{field.name} is {said!r} at the source, {row[field.column]!r} here")
    rest = {name: value for name, value in rest.items() if value is not None or name in (row["extra"] or {})}
    if rest != (row["extra"] or {}):
        differing.append(f"extra is {row['extra']!r}, not {rest!r}")
    return differing


def _natural(kind: FieldType, said: Any) -> Any:
    if said is None:
        return None
    if kind is FieldType.INSTANT:
        moment = datetime.fromisoformat(said)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if kind is FieldType.DECIMAL:
        return Decimal(str(said))
    return said
