"""What the demo's runs did, measured from outside: by the sandbox's log of requests and by the warehouse's tables."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rally_pipeline.cli.demo.least import least_requests
from rally_pipeline.cli.sync.session import SyncSession

if TYPE_CHECKING:
    from dagster import AssetKey

    from rally_pipeline.sandbox.application import Sandbox

_TIMES = ("_synced_at",)
"""Columns that say when a row was written, not what it says."""


@dataclass(slots=True)
class JobLine:
    """All runs of one job. `fewest`: requests that no client could do without; `seconds`: real ones."""

    job: str
    runs: int = 0
    requests: int = 0
    fewest: int = 0
    seconds: float = 0.0


class TableWatch:
    """The tables of a SQLite warehouse, looked at after every run: rows by key, and what changed in between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[str, dict[Hashable, int]] = {}
        self.changes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """By table: rows inserted, updated, deleted."""

    def look(self) -> None:
        """Compare with the look before."""
        if not self._path.exists():
            return
        with closing(sqlite3.connect(self._path)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in names:
                self._note(table, _contents(connection, table))

    def rows(self, table: str) -> int:
        """Rows at the last look."""
        return len(self._seen.get(table, {}))

    def read(self, table: str) -> dict[Hashable, dict[str, Any]]:
        """The rows as they are stored, by key (a tuple where it has several columns)."""
        with closing(sqlite3.connect(self._path)) as connection:
            return _rows(connection, table)

    def _note(self, table: str, present: dict[Hashable, int]) -> None:
        before, changes = self._seen.get(table, {}), self.changes[table]
        changes["inserted"] += len(present.keys() - before.keys())
        changes["deleted"] += len(before.keys() - present.keys())
        changes["updated"] += sum(before[key] != present[key] for key in present.keys() & before.keys())
        self._seen[table] = present


def _contents(connection: sqlite3.Connection, table: str) -> dict[Hashable, int]:
    names, keys = _columns(connection, table)
    told = [name for name in names if name not in _TIMES]
    shown = connection.execute(f"SELECT {_listed(keys)}, {_listed(told)} FROM {_listed([table])}")
    return {row[: len(keys)]: hash(row) for row in shown}


def _rows(connection: sqlite3.Connection, table: str) -> dict[Hashable, dict[str, Any]]:
    names, keys = _columns(connection, table)
    found: dict[Hashable, dict[str, Any]] = {}
    for values in connection.execute(f"SELECT {_listed(names)} FROM {_listed([table])}"):
        row = dict(zip(names, values, strict=True))
        key = tuple(row[name] for name in keys)
        found[key[0] if len(key) == 1 else key] = row
    return found


def _columns(connection: sqlite3.Connection, table: str) -> tuple[list[str], list[str]]:
    """All columns, and those of the key."""
    columns = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (table,)).fetchall()
    return [name for name, _ in columns], [name for name, place in columns if place]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


@dataclass(kw_only=True)
class MeasuredSession(SyncSession):
    """A `sync` session that keeps what each job cost."""

    sandbox: Sandbox
    tables: TableWatch
    jobs: dict[str, JobLine] = field(default_factory=dict)

    @classmethod
    def of(cls, session: SyncSession, sandbox: Sandbox, tables: TableWatch) -> MeasuredSession:
        """The same session, measured from now on."""
        given = {item.name: getattr(session, item.name) for item in fields(session) if item.init}
        return cls(**given, sandbox=sandbox, tables=tables)

    def run(
        self,
        job_name: str,
        *,
        tags: Mapping[str, str] | None = None,
        ops: Mapping[str, Any] | None = None,
        assets: Sequence[AssetKey] | None = None,
    ) -> bool:
        """Run the job as `sync` does; count its requests and look at the tables afterwards."""
        line = self.jobs.setdefault(job_name, JobLine(job_name))
        asked, begun = self.sandbox.log.total, time.monotonic()
        succeeded = super().run(job_name, tags=tags, ops=ops, assets=assets)
        line.seconds += time.monotonic() - begun
        line.requests += self.sandbox.log.total - asked
        line.runs += 1
        (run,) = self.instance.get_runs(limit=1)
        line.fewest += least_requests(
            self.instance, run.run_id, queue_page=self.sandbox.sell.options.page_size
        )
        self.tables.look()
        return succeeded
