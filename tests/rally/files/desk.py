"""A desk for import/export tests: a world whose key may write, and an importer and exporter on it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import select

from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.chunks import ChunkLimits
from rally_pipeline.rally.files.exporter import Exporter, ExportPolicy
from rally_pipeline.rally.files.importer import Importer, ImportReport
from rally_pipeline.rally.files.policy import ImportPolicy
from rally_pipeline.rally.files.tables import import_chunks, import_files, import_row_errors
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.sandbox.application import Sandbox
from tests.rally.world import World

Rows = Iterable[Mapping[str, str]]


class Desk(World):
    """One tenant, one warehouse, one clock, one inbox."""

    def __init__(self, url: str, folder: Path, sandbox: Sandbox, **policy: Any) -> None:
        self.folder = folder
        limits = ChunkLimits(
            max_bytes=policy.pop("max_bytes", 9_999_000), max_rows=policy.pop("max_rows", 10_000)
        )
        settings = {"overlap_seconds": 60, "staleness_seconds": 0, "quiet_seconds": 30, **policy}
        self.import_policy = ImportPolicy(limits=limits, **settings)
        self.files = sandbox.rally.files
        super().__init__(url, sandbox)

    def open(self) -> None:
        super().open()
        self.client = RallyClient(self.http, clock=self.clock)
        self.importer = Importer(self.warehouse, self.client, self.import_policy, clock=self.clock)
        self.importer.prepare()
        self.exporter = self.make_exporter()

    def make_exporter(self, **policy: Any) -> Exporter:
        return Exporter(self.warehouse, self.client, ExportPolicy(**policy), clock=self.clock)

    def write(self, entity: Entity, rows: Rows, name: str = "rows.csv", **form: Any) -> Path:
        """A CSV with the template's headers; `form` are the CSV writer's parameters."""
        path = self.folder / name
        path.write_bytes(csv_text(TEMPLATES[entity].headers, rows, **form).encode())
        return path

    def run(self, entity: Entity, path: Path) -> ImportReport:
        """Import, and hold the report against its own promise."""
        report = self.importer.run(entity, path)
        assert report.imported + report.duplicate + report.refused + report.unknown == report.rows
        return report

    def records(self, entity: Entity) -> list[dict[str, Any]]:
        return list(self.sandbox.rally.records(entity.value))

    def values(self, entity: Entity, field: str) -> Counter[str]:
        """How often each value of a field stands in Rally."""
        return Counter(record[field] for record in self.records(entity))

    def uploads(self) -> int:
        return len(self.sandbox.log.matching(path="/import"))

    def chunks(self) -> list[tuple[Any, ...]]:
        columns = import_chunks.c
        with self.warehouse.reading() as tx:
            return tx.rows(
                select(columns.chunk, columns.state, columns.rows, columns.bytes).order_by(columns.chunk)
            )

    def stored_bodies(self) -> list[bytes | None]:
        with self.warehouse.reading() as tx:
            return [row[0] for row in tx.rows(select(import_chunks.c.body).order_by(import_chunks.c.chunk))]

    def stored_hashes_hold(self) -> bool:
        columns = import_chunks.c
        with self.warehouse.reading() as tx:
            rows = tx.rows(select(columns.body, columns.body_sha256, columns.bytes))
        return all((sha256(body).hexdigest(), len(body)) == (digest, size) for body, digest, size in rows)

    def chunk_message(self, number: int) -> str | None:
        with self.warehouse.reading() as tx:
            message: str | None = tx.scalar(
                select(import_chunks.c.message).where(import_chunks.c.chunk == number)
            )
            return message

    def errors(self) -> list[tuple[int, str | None, str, str]]:
        """Row, column, outcome and fault of every problem."""
        columns = import_row_errors.c
        query = select(columns.row_number, columns.column_name, columns.outcome, columns.fault)
        with self.warehouse.reading() as tx:
            return [tuple(row) for row in tx.rows(query.order_by(columns.row_number, columns.no))]

    def file_row(self) -> dict[str, Any]:
        with self.warehouse.reading() as tx:
            return dict(tx.connection.execute(select(import_files)).mappings().one())


def csv_text(headers: Sequence[str], rows: Rows, **form: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, **{"lineterminator": "\n", **form})
    writer.writerow(headers)
    writer.writerows([row.get(name, "") for name in headers] for row in rows)
    return text.getvalue()


def contacts(count: int, *, start: int = 1, **more: str) -> list[dict[str, str]]:
    return [
        {"first_name": f"First {n}", "last_name": f"Last {n}", "email": f"person.{n}@import.example", **more}
        for n in range(start, start + count)
    ]


def companies(count: int, *, start: int = 1) -> list[dict[str, str]]:
    return [
        {"name": f"Company {n}", "domain": f"company{n}.example", "annual_revenue": f"{n}.50"}
        for n in range(start, start + count)
    ]


def deals(count: int, *, start: int = 1) -> list[dict[str, str]]:
    return [
        {"name": f"Deal {n}", "value": f"{n}.25", "stage_name": "Proposal", "pipeline_name": "Sales"}
        for n in range(start, start + count)
    ]


def activities(count: int, *, start: int = 1) -> list[dict[str, str]]:
    return [
        {"activity_type": "call", "subject": f"Call {n}", "due_date": "2026-05-01", "status": "pending"}
        for n in range(start, start + count)
    ]


ROWS = {
    Entity.CONTACTS: contacts,
    Entity.COMPANIES: companies,
    Entity.DEALS: deals,
    Entity.ACTIVITIES: activities,
}
NAMES = {
    Entity.CONTACTS: ("email", "email"),
    Entity.COMPANIES: ("name", "name"),
    Entity.DEALS: ("name", "name"),
    Entity.ACTIVITIES: ("subject", "subject"),
}
"""Column and field by which these tests tell rows apart."""


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))
