"""The warehouse: one database that holds the data and the state that describes it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import sqlalchemy as sa

from rally_pipeline.clock import Clock, Step, SystemClock, no_step
from rally_pipeline.warehouse import evolution, fences, identity, interrupts, leasing, opening, sqlite
from rally_pipeline.warehouse.errors import FenceLost, LeaseHeld, WarehouseError
from rally_pipeline.warehouse.leasing import Lease
from rally_pipeline.warehouse.sessions import Sessions
from rally_pipeline.warehouse.transaction import Bulk, Transaction

Result = TypeVar("Result")
LEASE_POLL_SECONDS = 0.5
SILENT_SECONDS = 5.0
"""A wait for a lease that takes longer is told, and then once in `LINE_SECONDS`."""
LINE_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Warehouse:
    """An open warehouse, made by `Warehouse.open`. Threads may share it; a forked process opens own connections.

    Every database error leaves as a `WarehouseError` of one line, without passwords and row values.
    """

    def __init__(
        self,
        sessions: Sessions,
        place: dict[str, Any],
        witness: identity.Witness | None,
        clock: Clock,
        step: Step,
    ) -> None:
        self._sessions = sessions
        self._place = place
        self._witness = witness
        self._clock = clock
        self._step = step

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        schema: str | None = None,
        clock: Clock | None = None,
        step: Step = no_step,
        home: Path | None = None,
        lock_wait_seconds: float = 30.0,
    ) -> Self:
        """Open the warehouse and create or migrate its own tables.

        Args:
            url: SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`, or the file of SQLite.
            schema: PostgreSQL schema for all tables, created if missing; SQLite has none and ignores it.
            clock: the clock of leases, states and retries.
            step: called before and after every transaction.
            home: folder of the witness file for PostgreSQL (see `identity`); SQLite keeps it beside the file.
            lock_wait_seconds: how long a statement waits for somebody else's lock.

        Raises:
            WarehouseError: bad URL, unreachable, unwritable, damaged, or written by a newer version; nothing
                was changed.
        """
        clock = clock or SystemClock()
        parsed = opening.parse_url(url)
        witness: identity.Witness | None
        if parsed.get_backend_name() == "sqlite":
            sessions, place, witness = opening.open_sqlite(parsed, lock_wait_seconds, clock)
        else:
            sessions, place, witness = opening.open_postgresql(parsed, schema, home, lock_wait_seconds, clock)
        return cls(sessions, place, witness, clock, step)

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        """Which database this is."""
        return "sqlite" if self._sessions.engine.dialect.name == "sqlite" else "postgresql"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._sessions.close()

    @contextlib.contextmanager
    def transaction(self, name: str, lease: Lease | None = None) -> Iterator[Transaction]:
        """One write transaction: committed when the block ends, rolled back when it raises.

        With a lease its first statement compares the fence. Repeats nothing by itself (see `run`).

        Raises:
            FenceLost: somebody took the stream over; nothing was written.
            CommitUnknown: the connection died in COMMIT and the outcome could not be found out.
            WarehouseError: any other trouble of the database; nothing was written. (Only a witness file that
                cannot be written is found out after the commit: the caller does not go on either way.)
            RuntimeError: this thread has a transaction open already.
        """
        self._step(f"{name}:begin")
        with interrupts.deferred():
            try:
                with self._sessions.open(reading=False) as connection:
                    if lease is not None:
                        leasing.check(connection, lease, self._clock)
                    transaction = self._new_transaction(connection)
                    yield transaction
                    self._step(f"{name}:before-commit")
                    self._sessions.commit(connection, name, lease)
            except FenceLost as lost:
                self._count_fence(lost)
                raise
            if lease is not None:
                lease.commits += 1
            if transaction.witnessed is not None and self._witness is not None:
                if transaction.renewed:
                    self._witness.restart(*transaction.witnessed)
                else:
                    self._witness.raise_to(*transaction.witnessed, replaces=transaction.replaces)
        self._step(f"{name}:after-commit")

    @contextlib.contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A read transaction that shows one moment, that of its first query; writing in it fails.

        It neither waits for writers nor holds them up.
        """
        with self._sessions.open(reading=True) as connection:
            yield self._new_transaction(connection)

    def run(
        self,
        name: str,
        work: Callable[[Transaction], Result],
        *,
        lease: Lease | None = None,
        attempts: int = 4,
    ) -> Result:
        """`work` in a transaction, repeated as a whole (so it must not call out) while that may help.

        Raises:
            WarehouseError: the last attempt's.
        """
        attempt = 1
        while True:
            try:
                with self.transaction(name, lease) as transaction:
                    result = work(transaction)
            except WarehouseError as error:
                if not error.repeatable or attempt >= attempts:
                    raise
                _log.warning("%s: attempt %d of %d: %s", name, attempt, attempts, error)
                self._clock.sleep(0.1 * 2**attempt)
                attempt += 1
            else:
                return result

    def create_tables(self, tables: sa.MetaData | Sequence[sa.Table]) -> list[str]:
        """Create missing tables, columns and indexes in one transaction; return what was done, a line each.

        Raises:
            WarehouseError: a table of that name has other column types, or a name cannot be used.
        """
        chosen = list(tables.sorted_tables if isinstance(tables, sa.MetaData) else tables)
        with self.reading() as transaction:
            if evolution.is_complete(transaction.connection, chosen):
                return []
        with self.transaction("create-tables") as transaction:
            opening.lock_creation(transaction.connection)
            return transaction.create_tables(chosen)

    @contextlib.contextmanager
    def lease(self, stream: str, *, wait_seconds: float = 0.0, ttl_seconds: float = 120) -> Iterator[Lease]:
        """Hold the stream's lease during the block; every leased transaction renews it for `ttl_seconds`.

        A holder that is known to be dead (same host, process gone) or whose time is up is taken over at once.

        Raises:
            LeaseHeld: a live process holds it and did not give it back within `wait_seconds`.
        """
        with leasing.holding() as token:
            taken = self._take_lease(stream, token, wait_seconds, ttl_seconds)
            try:
                yield taken
            finally:
                self._release_lease(taken)

    def identity(self) -> identity.Identity:
        """Which warehouse this is, and whether it may be a copy or a restored older state."""
        with self.reading() as transaction:
            return transaction.identity()

    def check_not_moved(self, why: str) -> None:
        """Stop what could be done twice; `why` says what a copy or an older state does not know.

        Raises:
            WarehouseError: this may be a copy or an older state of another warehouse.
        """
        if (found := self.identity()).moved:
            raise WarehouseError(identity.moved_message(found, why))

    def _take_lease(self, stream: str, token: str, wait_seconds: float, ttl_seconds: float) -> Lease:
        end = self._clock.monotonic() + wait_seconds
        next_line = self._clock.monotonic() + SILENT_SECONDS
        pause = LEASE_POLL_SECONDS / 16
        while True:
            try:
                with self.transaction(f"lease.{stream}.take") as transaction:
                    return leasing.take(transaction.connection, stream, token, ttl_seconds, self._clock)
            except LeaseHeld as error:
                left = end - self._clock.monotonic()
                if left <= 0:
                    raise
                if self._clock.monotonic() >= next_line:
                    until = self._clock.now() + timedelta(seconds=left)
                    _log.warning("waiting until %s UTC at the latest: %s", f"{until:%H:%M:%S}", error)
                    next_line += LINE_SECONDS
                self._clock.sleep(min(pause, left))
                pause = min(pause * 2, LEASE_POLL_SECONDS)

    def _release_lease(self, taken: Lease) -> None:
        """A lease that cannot be given back runs out by itself; that must not hide what ended the block."""
        try:
            with self.transaction(f"lease.{taken.stream}.release") as transaction:
                leasing.release(transaction.connection, taken)
        except WarehouseError as error:
            _log.warning("the lease of '%s' was not given back and will run out: %s", taken.stream, error)

    def _count_fence(self, lost: FenceLost) -> None:
        """A count that cannot be written must not hide what it counts."""
        try:
            with self._sessions.open(reading=False) as connection:
                fences.count_violation(self._new_transaction(connection), lost.stream, self._clock.now())
                self._sessions.commit(connection, "fence-violation", None)
        except WarehouseError as error:
            _log.warning("a fence violation of '%s' was not counted: %s", lost.stream, error)

    def _new_transaction(self, connection: sa.Connection) -> Transaction:
        bulk: Bulk
        if self.dialect == "sqlite":
            bulk = sqlite.SqliteBulk(connection)
        else:
            from rally_pipeline.warehouse.postgresql import PostgresBulk

            bulk = PostgresBulk(connection)
        return Transaction(connection, bulk, self._clock, self._place, self._witness)
