"""Connections and the life of one transaction: begin, undo, commit, and what a lost commit means."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from rally_pipeline.clock import Clock
from rally_pipeline.warehouse import diagnosis, interrupts
from rally_pipeline.warehouse.errors import CommitUnknown, WarehouseUnavailable
from rally_pipeline.warehouse.leasing import Lease
from rally_pipeline.warehouse.tables import leases

RECONNECT_ATTEMPTS = 6
STAGES = "rally_stages"
"""Key of `Connection.info`: what is known of the staging tables; a rollback may have taken them away."""
_log = logging.getLogger(__name__)


class Sessions:
    """The engine's connections, with every driver error turned into a `WarehouseError` of one line."""

    def __init__(self, engine: sa.Engine, place: str, clock: Clock) -> None:
        self.engine = engine
        self.place = place
        self._clock = clock
        self._process_id = os.getpid()
        self._inherited: list[sa.Pool] = []
        self._local = threading.local()

    def close(self) -> None:
        """Close all connections, unless they belong to the process this one was forked from."""
        if self._process_id == os.getpid():
            self.engine.dispose()

    @contextlib.contextmanager
    def open(self, *, reading: bool) -> Iterator[sa.Connection]:
        """A connection with a transaction begun: undone when the block raises, left open when it ends.

        Signals wait until it is closed.
        """
        self._leave_inherited()
        if not reading and getattr(self._local, "writing", False):
            raise RuntimeError("a transaction of this thread is open already: two would wait for each other")
        with interrupts.deferred():
            with self._translated():
                connection = self.engine.connect()
            try:
                self._local.writing = getattr(self._local, "writing", False) or not reading
                with self._translated(), self._undone_on_error(connection):
                    self._begin(connection, reading)
                    yield connection
            finally:
                if not reading:
                    self._local.writing = False
                connection.close()

    def commit(self, connection: sa.Connection, name: str, held: Lease | None) -> None:
        """Commit; a commit whose answer was lost is looked up by the lease row.

        Raises:
            CommitUnknown: the outcome could not be found out.
            WarehouseError: the transaction was not committed.
        """
        try:
            connection.commit()
        except diagnosis.DATABASE_ERRORS as error:
            unclear = _is_broken(connection) or _is_input_output(error)
            # Closing the session ends its transaction for certain, and lets go of its locks.
            connection.invalidate()
            if not unclear:
                raise diagnosis.diagnose(error, self.place) or error from None
            self._resolve(name, held)

    def _begin(self, connection: sa.Connection, reading: bool) -> None:
        if reading:
            options: dict[str, Any] = {"rally_reading": True}
            if connection.dialect.name == "postgresql":
                options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            connection.execution_options(**options)
        connection.begin()

    def _leave_inherited(self) -> None:
        """After a fork the parent's connections belong to the parent: keep them unused and open own ones."""
        if self._process_id != os.getpid():
            self._inherited.append(self.engine.pool)
            self.engine.dispose(close=False)
            self._process_id = os.getpid()
            self._local = threading.local()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except diagnosis.DATABASE_ERRORS as error:
            known = diagnosis.diagnose(error, self.place)
            if known is None:
                raise
            raise known from None

    @contextlib.contextmanager
    def _undone_on_error(self, connection: sa.Connection) -> Iterator[None]:
        try:
            yield
        except BaseException:
            _undo(connection)
            raise

    def _resolve(self, name: str, held: Lease | None) -> None:
        row = self._lease_row(held) if held is not None else None
        if held is None or row is None or row.fence != held.fence:
            raise CommitUnknown(
                f"{self.place}: the connection was lost while '{name}' was being committed, and whether it was is not "
                "known: run again, the state in the warehouse decides"
            )
        if row.commits != held.commits + 1:
            raise WarehouseUnavailable(
                f"{self.place}: the connection was lost while '{name}' was being committed; it was not committed, "
                "nothing was changed, run again"
            )
        _log.warning("%s: the connection was lost after '%s' had been committed", self.place, name)

    def _lease_row(self, held: Lease) -> sa.Row[*tuple[Any, ...]] | None:
        query = sa.select(leases.c.fence, leases.c.commits).where(leases.c.stream == held.stream)
        for attempt in range(RECONNECT_ATTEMPTS):
            try:
                # Locking the row waits for the lost session, should the server still be at work on its COMMIT.
                with self.engine.begin() as connection:
                    return connection.execute(query.with_for_update()).one_or_none()
            except diagnosis.DATABASE_ERRORS as error:
                _log.info("looking for the outcome of a commit: %s", type(error).__name__)
                self._clock.sleep(0.1 * 2**attempt)
        return None


def _undo(connection: sa.Connection) -> None:
    """Roll back; a session that is beyond it is thrown away, which rolls back as well."""
    try:
        connection.rollback()
    except diagnosis.DATABASE_ERRORS as error:
        _log.debug("rollback on a broken connection: %s", type(error).__name__)
        connection.invalidate()
    if _is_broken(connection):
        connection.invalidate()
    else:
        connection.info.pop(STAGES, None)


def _is_broken(connection: sa.Connection) -> bool:
    if connection.invalidated:
        return True
    driver: Any = connection.connection.dbapi_connection
    return not isinstance(driver, sqlite3.Connection) and bool(driver.closed)


def _is_input_output(error: BaseException) -> bool:
    """A failed write or sync leaves open whether SQLite finds the commit in its log later."""
    code = getattr(diagnosis.driver_error(error), "sqlite_errorname", "")
    return isinstance(code, str) and code.startswith("SQLITE_IOERR")
