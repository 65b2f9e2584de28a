"""Fresh databases for contestants: files of SQLite, or databases of one throw-away PostgreSQL server."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from tests.postgres import PostgresServer, running_server

KINDS = ("sqlite", "postgresql")
DURABLE = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "wal_level": "replica",
    "log_min_messages": "warning",
}
"""PostgreSQL's own defaults, where the server for tests departs from them."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Database(Protocol):
    """One empty database at a time."""

    name: str

    def fresh(self) -> str:
        """Begin a new, empty database and forget the one before; returns its SQLAlchemy URL."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query on the current database."""

    def settle(self) -> None:
        """Finish what the last contestant left for the background."""

    def server_cpu(self) -> float:
        """CPU seconds that the server's processes have used."""


class SqliteFiles:
    """A file each."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "none"
        self._count = 0

    def fresh(self) -> str:
        """See `Database`."""
        for part in self._folder.glob("*"):
            part.unlink()
        self._count += 1
        self._file = self._folder / f"warehouse-{self._count}.db"
        return f"sqlite:///{self._file}"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """See `Database`."""
        with contextlib.closing(sqlite3.connect(self._file)) as connection:
            return connection.execute(sql).fetchall()

    def settle(self) -> None:
        """See `Database`."""
        os.sync()

    def server_cpu(self) -> float:
        """See `Database`: there is no server."""
        return 0.0


class PostgresDatabases:
    """A database each on one server."""

    name = "PostgreSQL"

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._count = 0
        with server.connect() as connection:
            [version] = connection.execute("SHOW server_version").fetchone() or ("",)
        self.version = str(version)

    def fresh(self) -> str:
        """See `Database`."""
        before, self._count = self._count, self._count + 1
        with self._server.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "bench_{before}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "bench_{self._count}"')
        return self._server.url(f"bench_{self._count}")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """See `Database`."""
        import psycopg

        with psycopg.connect(
            host=str(self._server.folder), user="postgres", dbname=f"bench_{self._count}"
        ) as connection:
            return connection.execute(sql.encode()).fetchall()

    def settle(self) -> None:
        """See `Database`."""
        with self._server.connect() as connection:
            connection.execute("CHECKPOINT")

    def server_cpu(self) -> float:
        """See `Database`."""
        processes = _processes()
        postmaster = int((self._server.folder / "data" / "postmaster.pid").read_text().split()[0])
        used = 0
        for pid, (parent, own, ended) in processes.items():
            if pid == postmaster:
                used += own + ended
            elif parent == postmaster:
                used += own
        return used / _TICKS


def _processes() -> dict[int, tuple[int, int, int]]:
    """Process id to (parent, own ticks, ticks of ended children)."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        found[int(folder.name)] = (
            int(fields[1]),
            int(fields[11]) + int(fields[12]),
            int(fields[13]) + int(fields[14]),
        )
    return found


@contextlib.contextmanager
def open_database(kind: str) -> Iterator[Database]:
    """`sqlite` or `postgresql`, for the block."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            yield SqliteFiles(Path(folder))
    else:
        with running_server(**DURABLE) as server:
            yield PostgresDatabases(server)
