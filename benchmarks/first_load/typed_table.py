"""The floors' own table: typed columns, a primary key, and one upsert that is guarded by the time of change."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from benchmarks.source.contacts import FIELDS

COLUMNS = [re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name) for name in FIELDS]
_NAMES = ", ".join(COLUMNS)
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
_GUARDED = f"ON CONFLICT (id) DO UPDATE SET {_UPDATES} WHERE contacts.updated_at < excluded.updated_at"
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
Record = dict[str, Any]


class TypedTable(Protocol):
    """`contacts` and `cursor` in one database."""

    def versions(self) -> dict[str, str]:
        """Id to time of change, as the API writes it, of every stored row."""

    def cursor(self) -> str | None:
        """The stored cursor."""

    def write(self, records: Sequence[Record], cursor: str) -> None:
        """Upsert the records and set the cursor, in one transaction."""

    def close(self) -> None:
        """End the connection."""


class SqliteTable:
    """By `executemany`."""

    def __init__(self, url: str) -> None:
        self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        typed = ", ".join(f"{name} {'INTEGER' if name == 'lead_score' else 'TEXT'}" for name in COLUMNS[1:])
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS contacts (id TEXT PRIMARY KEY NOT NULL, {typed})"
        )
        self._connection.execute("CREATE TABLE IF NOT EXISTS cursor (place INTEGER PRIMARY KEY, value TEXT)")
        marks = ", ".join("?" * len(COLUMNS))
        self._upsert = f"INSERT INTO contacts ({_NAMES}) VALUES ({marks}) {_GUARDED}"

    def versions(self) -> dict[str, str]:
        """See `TypedTable`."""
        return dict(self._connection.execute("SELECT id, updated_at FROM contacts"))

    def cursor(self) -> str | None:
        """See `TypedTable`."""
        found = self._connection.execute("SELECT value FROM cursor").fetchone()
        return found[0] if found else None

    def write(self, records: Sequence[Record], cursor: str) -> None:
        """See `TypedTable`."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(self._upsert, [tuple(record.values()) for record in records])
        self._connection.execute("INSERT OR REPLACE INTO cursor VALUES (1, ?)", (cursor,))
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """See `TypedTable`."""
        self._connection.close()


class PostgresTable:
    """By COPY into a temporary table, and one statement from there."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(
            url.replace("postgresql+psycopg", "postgresql"), options="-cTimeZone=UTC"
        )
        typed = ", ".join(f"{name} {_postgres_type(name)}" for name in COLUMNS[1:])
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS contacts (id text PRIMARY KEY, {typed})")
        self._connection.execute("CREATE TABLE IF NOT EXISTS cursor (place int PRIMARY KEY, value text)")
        self._connection.execute("CREATE TEMPORARY TABLE stage (LIKE contacts) ON COMMIT DELETE ROWS")
        self._connection.commit()

    def versions(self) -> dict[str, str]:
        """See `TypedTable`."""
        shown = """to_char(updated_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""
        return dict(self._connection.execute(f"SELECT id, {shown} FROM contacts"))

    def cursor(self) -> str | None:
        """See `TypedTable`."""
        found = self._connection.execute("SELECT value FROM cursor").fetchone()
        return found[0] if found else None

    def write(self, records: Sequence[Record], cursor: str) -> None:
        """See `TypedTable`."""
        with self._connection.cursor().copy(f"COPY stage ({_NAMES}) FROM STDIN") as copy:
            copy.write("".join(map(_copy_line, records)))
        self._connection.execute(f"INSERT INTO contacts SELECT {_NAMES} FROM stage {_GUARDED}")
        self._connection.execute(
            "INSERT INTO cursor VALUES (1, %s) ON CONFLICT (place) DO UPDATE SET value = excluded.value",
            (cursor,),
        )
        self._connection.commit()

    def close(self) -> None:
        """See `TypedTable`."""
        self._connection.close()


def open_table(url: str) -> TypedTable:
    """The table of the database that the SQLAlchemy URL names."""
    return SqliteTable(url) if url.startswith("sqlite") else PostgresTable(url)


def in_batches(pages: Iterable[list[Record]], size: int, write: Callable[[list[Record]], None]) -> int:
    """Hand the records on in batches of about `size`, whole pages each; returns how many there were."""
    total = 0
    batch: list[Record] = []
    for page in pages:
        batch += page
        total += len(page)
        if len(batch) >= size:
            write(batch)
            batch = []
    if batch:
        write(batch)
    return total


def _postgres_type(column: str) -> str:
    if column.endswith("_at"):
        return "timestamptz"
    return "integer" if column == "lead_score" else "text"


def _copy_line(record: Record) -> str:
    cells = ["\\N" if value is None else str(value) for value in record.values()]
    line = "\t".join(cells)
    if line.count("\t") >= len(cells) or "\n" in line or "\r" in line or line.count("\\") > line.count("\\N"):
        line = "\t".join(
            "\\N" if value is None else str(value).translate(_ESCAPES) for value in record.values()
        )
    return f"{line}\n"
