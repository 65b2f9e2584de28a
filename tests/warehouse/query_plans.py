"""The plans by which a database really executed statements, to see which tables were read from end to end.

PostgreSQL tells them itself (its module `auto_explain`, as notices on the same connection, so with the real values and
statistics); SQLite is asked about every statement afterwards.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa

_EXPLAIN = (
    "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_level = notice;"
    " SET auto_explain.log_format = json; SET client_min_messages = notice"
)
_PLANNED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
_NAMED = re.compile(r'(?:FROM|JOIN|UPDATE|INTO)\s+"?(\w+)"?(?:\s+(?:AS\s+)?"?(\w+)"?)?', re.IGNORECASE)
_ALIKE = 300
"""Statements that begin with as many equal characters have the same plan."""


class PlanWatch:
    """What was executed on connections that were opened while watching."""

    def __init__(self, tables: Collection[str]) -> None:
        self._tables = frozenset(tables)
        self._statements: dict[str, str] = {}
        self._plans: dict[str, dict[str, Any]] = {}
        self._file: str | None = None

    def attend(self, connection: Any, _record: object = None) -> None:
        """Watch a new driver connection."""
        if isinstance(connection, sqlite3.Connection):
            self._file = connection.execute("PRAGMA database_list").fetchone()[2]
            connection.set_trace_callback(self._note_statement)
        else:
            before, connection.autocommit = connection.autocommit, True
            connection.execute(_EXPLAIN)
            connection.autocommit = before
            connection.add_notice_handler(self._note_plan)

    def touched(self) -> set[str]:
        """Those of the tables that some statement named."""
        texts = [*self._statements.values(), *self._plans]
        return {table for table in self._tables if any(re.search(rf"\b{table}\b", text) for text in texts)}

    def scans(self) -> list[str]:
        """Statements that read one of the tables from end to end."""
        return sorted({*self._sqlite_scans(), *self._postgresql_scans()})

    def _note_statement(self, statement: str) -> None:
        if statement.lstrip().upper().startswith(_PLANNED):
            self._statements.setdefault(statement[:_ALIKE], statement)

    def _note_plan(self, notice: Any) -> None:
        _, brace, rest = notice.message_primary.partition("{")
        if brace:
            explained = json.loads(brace + rest)
            self._plans.setdefault(explained["Query Text"], explained["Plan"])

    def _sqlite_scans(self) -> Iterator[str]:
        if self._file is None:
            return
        with closing(sqlite3.connect(self._file)) as connection:
            for statement in self._statements.values():
                names = {alias or table: table for table, alias in _NAMED.findall(statement)}
                for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
                    verb, _, rest = step.partition(" ")
                    table = rest.split(" ")[0]
                    if verb == "SCAN" and names.get(table, table) in self._tables:
                        yield f"{step}: {statement[:_ALIKE]}"

    def _postgresql_scans(self) -> Iterator[str]:
        for statement, plan in self._plans.items():
            for node in _nodes(plan):
                if node["Node Type"] == "Seq Scan" and node["Relation Name"] in self._tables:
                    yield f"{node['Relation Name']}: {statement[:_ALIKE]}"


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


@contextmanager
def watched_plans(tables: Collection[str]) -> Iterator[PlanWatch]:
    """Watch every connection that is opened in the block."""
    watch = PlanWatch(tables)
    sa.event.listen(sa.Engine, "connect", watch.attend)
    try:
        yield watch
    finally:
        sa.event.remove(sa.Engine, "connect", watch.attend)


def fill(connection: sa.Connection, table: sa.Table, count: int, **columns: str) -> None:
    """Write `count` rows; `columns` are SQL expressions in which `n` is the number of the row, from 1."""
    numbers = (
        f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
        if connection.dialect.name == "sqlite"
        else f"WITH numbers AS (SELECT n FROM generate_series(1, {count}) AS n)"
    )
    names, values = ", ".join(columns), ", ".join(columns.values())
    connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}) {numbers} SELECT {values} FROM numbers")


def refresh_statistics(connection: sa.Connection) -> None:
    """What PostgreSQL's autovacuum does in the background; SQLite plans without statistics, as in production."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ANALYZE")
