"""A tenant whose key may write, and processes that import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import select

from rally_pipeline.http.client import HttpClient
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.chunks import ChunkLimits
from rally_pipeline.rally.files.importer import Importer, ImportReport
from rally_pipeline.rally.files.policy import ImportPolicy
from rally_pipeline.rally.files.tables import import_row_errors
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.transport import SandboxTransport
from rally_pipeline.warehouse import Warehouse
from tests.simulation.imports.files import ImportFile, key_of

BASE_URL = "http://127.0.0.1/rally/api/v1"
QUIET_SECONDS = 30


class Killed(BaseException):
    """The process died. Not an Exception, so nothing can handle it."""


class Tenant:
    """One tenant of Rally, and the records in it that nobody of us made."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        max_rows: int,
        list_order: str = "createdAt",
        max_limit: int = 1000,
        lag_seconds: int = 0,
        **switches: Any,
    ) -> None:
        self.folder = folder
        rally = {
            "list_order": list_order,
            "max_limit": max_limit,
            "replica_lag_seconds": float(lag_seconds),
            "limit_per_minute": None,
        }
        self.sandbox = Sandbox(seed=seed, records=0, apis=["rally"], rally=rally)
        self.clock = self.sandbox.clock
        self.switches = switches
        self.files = self.sandbox.rally.files
        self.files.switch(**switches)
        self.transport = SandboxTransport(self.sandbox)
        # A read-back may be as old as the lag, so it looks that much further back and waits that much longer.
        self.policy = ImportPolicy(
            limits=ChunkLimits(max_rows=max_rows),
            overlap_seconds=60 + lag_seconds,
            staleness_seconds=lag_seconds,
            quiet_seconds=QUIET_SECONDS + lag_seconds,
        )
        self.foreign: set[str] = set()
        self.lives = 0

    def switch(self, **changes: Any) -> None:
        """Change file switches; uploads are counted from here on."""
        self.files.switch(**changes)

    def create_foreign(self, entity: Entity, fields: dict[str, Any]) -> None:
        """Somebody else makes a record."""
        self.foreign.add(str(self.sandbox.rally.create(entity.value, fields)["id"]))

    def count(self, entity: Entity, *, foreign: bool) -> Counter[tuple[str, ...]]:
        """How often each key stands in Rally."""
        return Counter(
            key_of(entity, record)
            for record in self.sandbox.rally.records(entity.value)
            if foreign or str(record["id"]) not in self.foreign
        )

    def uploads(self) -> int:
        return len(self.sandbox.log.matching(path="/import"))


class Process:
    """One process with its own connection and client; `crash` is the step at which it dies."""

    def __init__(self, tenant: Tenant, *, crash: int = 0) -> None:
        self.tenant = tenant
        self.crash = crash
        self.steps: list[str] = []
        self.between: tuple[int, Callable[[], None]] | None = None
        tenant.lives += 1
        url = f"sqlite:///{tenant.folder / 'warehouse.db'}"
        self.warehouse = Warehouse.open(url, clock=tenant.clock, step=self.step)
        http = HttpClient(
            system="rally",
            base_url=BASE_URL,
            headers={"X-Api-Key": tenant.sandbox.environment("http://127.0.0.1")["RALLY_API_KEY"]},
            transport=tenant.transport,
            clock=tenant.clock,
            random=Random(tenant.lives),
            step=self.step,
        )
        client = RallyClient(http, clock=tenant.clock)
        self.importer = Importer(self.warehouse, client, tenant.policy, clock=tenant.clock)

    def run(self, file: ImportFile) -> ImportReport:
        """Import one file."""
        self.importer.prepare()
        return self.importer.run(file.entity, file.path)

    def outcomes(self, sha256: str) -> dict[int, str]:
        """What became of the rows that were not imported, by number of the row."""
        columns = import_row_errors.c
        with self.warehouse.reading() as tx:
            query = select(columns.row_number, columns.outcome).where(columns.sha256 == sha256)
            return {int(number): str(outcome) for number, outcome in tx.rows(query)}

    def step(self, name: str) -> None:
        """The hook of every call and commit."""
        self.steps.append(name)
        if self.crash and len(self.steps) >= self.crash:
            raise Killed(name)
        if self.between is not None and len(self.steps) >= self.between[0] and _may_stand_still(name):
            (_, action), self.between = self.between, None
            action()

    def close(self) -> None:
        self.warehouse.close()


def _may_stand_still(name: str) -> bool:
    """Whether another process may come between here.

    Not within a transaction: it would wait in real time for the database's lock. Not with the upload's first byte on
    its way: a process that is stopped just there for longer than its lease cannot be kept from sending.
    """
    return not name.endswith(("-commit", "/import:before"))
