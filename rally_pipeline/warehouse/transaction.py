"""One open transaction: state, rows, quarantine, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from rally_pipeline.clock import Clock
from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse import evolution, identity, leasing, values
from rally_pipeline.warehouse import quarantine as quarantining
from rally_pipeline.warehouse.errors import WarehouseError
from rally_pipeline.warehouse.identity import Identity
from rally_pipeline.warehouse.plans import DELETED_AT, Key, Plan, Row, UpsertResult, plan_rows
from rally_pipeline.warehouse.tables import sync_state

_OF_STREAM = sync_state.c.stream == sa.bindparam("of_stream")
_GET_STATE = sa.select(sync_state.c.value).where(_OF_STREAM)
_NEIGHBOURS_FROM = 20
_SET_STATE = sync_state.update().where(_OF_STREAM)
_INSERT_STATE: dict[str, Any] = {
    "sqlite": sqlite.insert(sync_state),
    "postgresql": postgresql.insert(sync_state),
}
# Another process may insert the same stream's first state at the same moment.
_PUT_STATE = {
    dialect: insert.on_conflict_do_update(
        index_elements=[sync_state.c.stream],
        set_={"value": insert.excluded.value, "updated_at": insert.excluded.updated_at},
    )
    for dialect, insert in _INSERT_STATE.items()
}
_CLAIM_STATE = {dialect: insert.on_conflict_do_nothing() for dialect, insert in _INSERT_STATE.items()}


class Bulk(Protocol):
    """What each database does in its own way."""

    def upsert(self, plan: Plan, rows: Sequence[Row]) -> UpsertResult: ...

    def insert_new(self, plan: Plan, rows: Sequence[Row]) -> list[Row]: ...

    def fetch(
        self, table: sa.Table, columns: Sequence[str], keys: Sequence[Key]
    ) -> list[tuple[Key, Row]]: ...

    def near(self, table: sa.Table, column: str, key: Key, limit: int) -> dict[Key, Any]: ...

    def live_keys(self, table: sa.Table, batch: int) -> Iterator[list[Key]]: ...

    def page(
        self, table: sa.Table, columns: Sequence[str], after: Key | None, limit: int
    ) -> list[tuple[Key, Row]]: ...

    def delete(self, table: sa.Table, keys: Sequence[Key], at: str | None) -> int: ...


class Transaction:
    """Made by `Warehouse.transaction` and `Warehouse.reading`; not to be used after their block has ended.

    Rows are tuples of storage-neutral values (see `values`) in the order of the columns given. A key is the
    value of a primary key of one column, or the tuple of the values of several.
    """

    def __init__(
        self,
        connection: sa.Connection,
        bulk: Bulk,
        clock: Clock,
        place: dict[str, Any],
        witness: identity.Witness | None,
    ) -> None:
        self.connection = connection
        self._bulk = bulk
        self._clock = clock
        self._place = place
        self._witness = witness
        self.witnessed: tuple[str, int] | None = None
        self.renewed = False
        self.replaces: list[str] = []

    # Small statements

    def execute(self, statement: sa.Executable, params: Any = None) -> sa.CursorResult[Any]:
        """Run a SQLAlchemy Core statement."""
        return self.connection.execute(statement, params)

    def rows(self, statement: sa.Executable, params: Any = None) -> list[tuple[Any, ...]]:
        """All rows of a query as plain tuples of natural Python values."""
        return [tuple(row) for row in self.connection.execute(statement, params)]

    def scalar(self, statement: sa.Executable, params: Any = None) -> Any:
        """The first value of the first row, or None."""
        return self.connection.execute(statement, params).scalar()

    def count(self, table: sa.Table) -> int:
        """Rows of the table that are not marked deleted."""
        query = sa.select(sa.func.count()).select_from(table)
        if DELETED_AT in table.columns:
            query = query.where(table.columns[DELETED_AT].is_(None))
        return int(self.connection.execute(query).scalar_one())

    def create_tables(self, tables: sa.MetaData | Sequence[sa.Table]) -> list[str]:
        """Create missing tables, columns and indexes in this transaction; return what was done."""
        chosen = tables.sorted_tables if isinstance(tables, sa.MetaData) else tables
        return evolution.evolve(self.connection, chosen)

    # State

    def state(self, stream: str) -> dict[str, Any] | None:
        """The stream's state as last set, or None."""
        value = self.scalar(_GET_STATE, {"of_stream": stream})
        return dict(value) if value is not None else None

    def set_state(self, stream: str, value: Mapping[str, Any]) -> None:
        """Replace the stream's state; it is committed with everything else of this transaction."""
        fields = {"value": dict(value), "updated_at": self._clock.now()}
        if not self.execute(_SET_STATE, {"of_stream": stream, **fields}).rowcount:
            self.execute(_PUT_STATE[self.connection.dialect.name], {"stream": stream, **fields})

    def claim_state(self, stream: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Set the stream's state if it has none, and return the one that it has: of several writers the first wins."""
        fields = {"stream": stream, "value": dict(value), "updated_at": self._clock.now()}
        self.execute(_CLAIM_STATE[self.connection.dialect.name], fields)
        state = self.state(stream)
        assert state is not None
        return state

    # Rows in bulk

    def upsert(
        self,
        table: sa.Table,
        columns: Sequence[str],
        rows: Sequence[Row],
        *,
        guard: str | None = None,
        touch: Sequence[str] = (),
        clean: bool = False,
    ) -> UpsertResult:
        """Insert or update `rows` by primary key; rows that are equal to what is stored cost no write.

        `touch` columns (such as `_synced_at`) are written with a changed row but make no row changed. With
        `guard` (a version column among `columns`) a row whose guard is smaller than the stored one is kept out
        and its key returned in `older`; equal guards let the incoming row win; an empty guard on either side
        refuses nothing. Of several rows with one key the greatest guard wins, among equals the last. A table
        with `_deleted_at` that is not among `columns`: writing a row brings it back to life.

        Rows that the database refuses do not disturb the others; they come back in `rejected` with a reason
        that names the column and never the value. `clean` vouches that no text holds U+0000 or a lone surrogate
        (`values.clean_text`), which saves looking for them.

        Raises:
            ValueError: columns, guard or key do not fit the table.
        """
        plan = plan_rows(table, tuple(columns), guard, frozenset(touch), clean=clean)
        return self._bulk.upsert(plan, rows) if rows else UpsertResult()

    def insert_new(
        self,
        table: sa.Table,
        columns: Sequence[str],
        rows: Sequence[Row],
        *,
        returning: Sequence[str] | None = None,
    ) -> list[Any]:
        """Insert the rows whose key is not stored yet (the first of equal keys) and leave the others alone.

        Returns the keys of the new rows in the order given, or tuples of the `returning` columns.

        Raises:
            RowRefused: the database refuses a row; the transaction cannot go on.
        """
        plan = plan_rows(table, tuple(columns))
        fresh = self._bulk.insert_new(plan, rows) if rows else []
        if returning is None:
            return [plan.key_of(row) for row in fresh]
        positions = [plan.columns.index(name) for name in returning]
        return [tuple(row[position] for position in positions) for row in fresh]

    def versions(self, table: sa.Table, keys: Sequence[Key], column: str = "_version") -> dict[Key, Any]:
        """The stored value of `column` for those of `keys` that are stored, in storage-neutral form.

        Keys that come in the order in which their rows were written, as the pages of a list mostly do, are found
        together: rows beside the first one are read in one go, and only what is not among them is looked up.
        """
        if len(keys) < _NEIGHBOURS_FROM:
            return {key: row[0] for key, row in self._bulk.fetch(table, (column,), keys)}
        found = self._bulk.near(table, column, keys[0], len(keys))
        if not found.keys() <= (wanted := set(keys)):
            found = {key: value for key, value in found.items() if key in wanted}
        if len(found) < len(wanted):
            missing = [key for key in keys if key not in found] if found else keys
            found.update((key, row[0]) for key, row in self._bulk.fetch(table, (column,), missing))
        return found

    def fetch(self, table: sa.Table, columns: Sequence[str], keys: Sequence[Key]) -> dict[Key, Row]:
        """The stored rows with these keys, in storage-neutral form."""
        return dict(self._bulk.fetch(table, columns, keys))

    def live_keys(self, table: sa.Table, *, batch: int = 5_000) -> Iterator[list[Key]]:
        """The keys of all rows that are not marked deleted, in no order, `batch` at a time."""
        yield from self._bulk.live_keys(table, batch)

    def scan(
        self, table: sa.Table, columns: Sequence[str], *, batch: int = 1_000
    ) -> Iterator[list[tuple[Key, Row]]]:
        """All rows in order of the primary key (text bytewise), `batch` at a time, as (key, row)."""
        after = None
        while page := self._bulk.page(table, columns, after, batch):
            yield page
            if len(page) < batch:
                return
            after = page[-1][0]

    def delete(self, table: sa.Table, keys: Sequence[Key], *, mode: DeleteMode, at: datetime | str) -> int:
        """Remove the rows, or set `_deleted_at` where it is empty; return how many rows that changed."""
        return self._bulk.delete(table, keys, values.instant_text(at) if mode is DeleteMode.SOFT else None)

    # Quarantine

    def quarantine(self, source: str, key: str, reason: str, raw: bytes | str) -> None:
        """Keep a record that cannot be stored; the same source and key again counts one attempt more."""
        quarantining.put(self.connection, source, key, reason, raw, self._clock.now())

    def release(self, source: str, key: str) -> bool:
        """Take a record out of the quarantine; return whether it was there."""
        return quarantining.release(self.connection, source, key)

    def quarantined(
        self, source: str | None = None, *, limit: int = 1_000
    ) -> list[quarantining.QuarantinedRecord]:
        """The oldest records of a source (None: of all sources)."""
        return list(quarantining.read(self.connection, source, limit))

    # Lineage

    def identity(self) -> identity.Identity:
        """Which warehouse this is, and whether it may be a copy or a restored older state."""
        told = self._witness.read() if self._witness is not None else None
        return identity.compare(identity.read(self.connection), self._place, told, self.earlier_ids())

    def earlier_ids(self) -> list[str]:
        """Identities that this warehouse had before its present one, the oldest first."""
        return list((self.state(identity.LINEAGE) or {}).get("earlier", []))

    def witness(self) -> None:
        """Call before a commit after which the outside world is told to forget something (an acknowledgement).

        When the block has ended, the witness file knows of this commit: a restored older state is recognised.

        Raises:
            WarehouseError: this may be a copy or an older state itself, so nothing may be acknowledged.
        """
        if not self.renewed and (found := self.identity()).moved:
            raise WarehouseError(identity.moved_message(found, "nothing can be acknowledged or sent"))
        self.witnessed = identity.count_up(self.connection)
        self.replaces = self.earlier_ids()

    def renew_identity(self) -> str:
        """Begin a new lineage here (after `Identity.moved` was dealt with); return the new id."""
        earlier = [*self.earlier_ids(), identity.read(self.connection).id]
        self.set_state(identity.LINEAGE, {"earlier": earlier[-identity.EARLIER_KEPT :]})
        warehouse_id = identity.renew(self.connection, self._place)
        self.witnessed, self.renewed = (warehouse_id, 0), True
        return warehouse_id

    def begin_anew(self) -> Identity:
        """A new lineage of a warehouse that was restored or copied; whoever wrote to the old one cannot go on."""
        warehouse_id = self.renew_identity()
        leasing.revoke_all(self.connection)
        row = identity.read(self.connection)
        return Identity(warehouse_id, row.created_at, moved=False, reasons=(), witness_count=0)
