"""Dagster's SQLite event log with its databases kept open.

Dagster opens and closes the database for each event, two or three times, and SQLite then empties its write-ahead log
with several waits for the disk: 1,500 of them in a run that has nothing to do. Files and tables stay Dagster's own, so
that a home folder can go back to Dagster's class, and forth, at any time.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import Connection, Engine
from sqlalchemy.event import listen
from sqlalchemy.pool import NullPool

MOST_RUNS_OPEN = 8
"""Each is a database of its own; services that show many runs close the ones looked at longest ago."""


class Instance(dg.DagsterInstance):
    """Named by `dagster.yaml` as `instance_class`; other storages than SQLite stay as they are."""

    def __init__(self, *, event_storage: Any, **rest: Any) -> None:
        if type(event_storage) is SqliteEventLogStorage:
            event_storage = KeptOpenEventLog(str(Path(event_storage.path_for_shard(INDEX_SHARD_NAME)).parent))
        super().__init__(event_storage=event_storage, **rest)

    @classmethod
    def config_schema(cls) -> dict[str, Any]:
        """Settings beyond those of every instance: none."""
        return {}

    @classmethod
    def config_defaults(cls, base_dir: str) -> Mapping[str, Any]:
        """What `dagster.yaml` does not say is as in every instance."""
        return InstanceRef.config_defaults(base_dir)


class KeptOpenEventLog(SqliteEventLogStorage):
    """One connection for the index and each recent run; Dagster's own lock admits one thread at a time."""

    def __init__(self, base_dir: str) -> None:
        self._open: OrderedDict[str, Connection] = OrderedDict()
        self._tables: set[str] = set()
        super().__init__(base_dir)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            connection = self._connection(shard)
            with connection.begin():
                yield connection

    def _connection(self, shard: str) -> Connection:
        if shard not in self._initialized_dbs:
            self._initdb(self._engine(shard))
            self._initialized_dbs.add(shard)
        if shard not in self._open:
            self._open[shard] = self._engine(shard).connect()
        self._open.move_to_end(shard)
        self._close_oldest()
        return self._open[shard]

    def _engine(self, shard: str) -> Engine:
        arguments = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
        engine = create_engine(self.conn_string_for_shard(shard), poolclass=NullPool, connect_args=arguments)
        listen(engine, "connect", _commit_without_waiting)
        return engine

    def _close_oldest(self) -> None:
        runs = [shard for shard in self._open if shard != INDEX_SHARD_NAME]
        for shard in runs[:-MOST_RUNS_OPEN]:
            self._open.pop(shard).close()

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store it; whoever follows the run is told."""
        super().store_event(event)
        # The commit went to the write-ahead log beside the file, but the live log of the UI watches the file.
        os.utime(self.path_for_shard(event.run_id))

    def has_table(self, table_name: str) -> bool:
        """Asked for each check result; a table that is there stays there."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def wipe(self) -> None:
        """Remove every event; the files of the runs go as well."""
        self._close()
        super().wipe()

    def dispose(self) -> None:
        """Close the databases."""
        super().dispose()
        self._close()

    def _close(self) -> None:
        with self._db_lock:
            while self._open:
                self._open.popitem()[1].close()


def _commit_without_waiting(connection: Any, _record: Any) -> None:
    """A crash of the process loses nothing. A power cut may lose the last events of Dagster's history, which no data
    and no cursor depends on: those are in the warehouse."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
