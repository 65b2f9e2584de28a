"""SQLite: the connection rules of an embedded warehouse, and its bulk statements.

WAL with `synchronous=FULL` (a commit survives power loss), explicit `BEGIN IMMEDIATE` (the driver's own
transactions leave DDL behind after a rollback), `secure_delete` (deleted people leave no bytes), mode 0600.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from operator import itemgetter, length_hint
from pathlib import Path
from typing import Any, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_dialect

from rally_pipeline.warehouse import diagnosis
from rally_pipeline.warehouse.errors import WarehouseDamaged, WarehouseError
from rally_pipeline.warehouse.plans import (
    DELETED_AT,
    Key,
    Plan,
    Row,
    UpsertResult,
    check_row,
    greater,
    primary_key,
    refusal,
)
from rally_pipeline.warehouse.quoting import quote_always
from rally_pipeline.warehouse.types import BigInteger, Boolean, Text

CHECK_SECONDS = 0.05
_ALL_NEW = "rally_all_new"
_MANY_ROWS = 50
_decode_numbers = msgspec.json.Decoder(dict[str, int | None]).decode
_quote = sqlite_dialect.dialect().identifier_preparer.quote_identifier


def database_file(url: sa.URL) -> Path:
    """The absolute path of the warehouse's file.

    Raises:
        WarehouseError: the URL names no file, or has options that would break the storage rules.
    """
    name = url.database or ""
    if not name or name == ":memory:" or name.startswith("file:") or "\0" in name:
        raise WarehouseError(
            "WAREHOUSE_URL: a SQLite warehouse needs a plain file, such as sqlite:////data/warehouse.db "
            "(an in-memory database forgets everything)"
        )
    if url.query:
        raise WarehouseError("WAREHOUSE_URL: options after '?' are not supported for SQLite")
    return Path(name).expanduser().resolve()


def prepare_file(file: Path, witness: Path) -> bool:
    """Make the folder (0700) and the file (0600) if absent; return whether the file is new (or empty).

    Raises:
        WarehouseError: something is not writable, not a file, or the file lost its content.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if file.exists() and not file.is_file():
            raise WarehouseError(f"the warehouse file {file} is not a file")
        fresh = not file.exists() or file.stat().st_size == 0
        if fresh:
            _refuse_emptied(file, witness)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if file.stat().st_mode & 0o077 and file.stat().st_uid == os.geteuid():
            file.chmod(0o600)
    except OSError as error:
        raise WarehouseError(
            f"the warehouse file {file} cannot be created or written: {error.strerror}; check the folder's permissions"
        ) from None
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise WarehouseError(
            f"the folder {file.parent} is not writable: SQLite keeps its log beside the database"
        )
    return fresh


def _refuse_emptied(file: Path, witness: Path) -> None:
    """A new file must not silently take the place of a lost one."""
    log = file.with_name(f"{file.name}-wal")
    if log.exists() and log.stat().st_size > 0:
        raise WarehouseDamaged(
            f"the warehouse file {file} is missing or empty but its log {log.name} is not: restore the file, or move "
            "the log away to start anew"
        )
    if file.exists() and witness.exists():
        raise WarehouseDamaged(
            f"the warehouse file {file} is empty although a warehouse was kept in it: restore a backup, or delete it "
            "to start anew"
        )


def create_engine(file: Path, lock_wait_seconds: float) -> sa.Engine:
    """An engine whose connections follow the storage rules; nothing is opened yet."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(file)),
        hide_parameters=True,
        pool_use_lifo=True,
        connect_args={"timeout": lock_wait_seconds, "cached_statements": 256},
    )

    quote_always(engine.dialect)

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        for pragma in (
            "page_size=8192",
            "journal_mode=WAL",
            "wal_autocheckpoint=4000",
            "synchronous=FULL",
            "secure_delete=ON",
            "foreign_keys=OFF",
            "temp_store=MEMORY",
            "cache_size=-16384",
            "journal_size_limit=67108864",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchone()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("rally_reading", False)
        driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
        driver.execute(f"PRAGMA query_only = {int(reading)}")
        driver.execute("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def check_file(connection: sa.Connection, file: Path) -> None:
    """Run SQLite's quick check, for at most `CHECK_SECONDS`.

    Raises:
        WarehouseDamaged: the check found damage.
    """
    driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
    end = time.monotonic() + CHECK_SECONDS
    driver.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        (answer,) = driver.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
        return
    finally:
        driver.set_progress_handler(None, 0)
    if answer != "ok":
        raise WarehouseDamaged(
            f"the warehouse file {file} is corrupt: restore a backup, or move the file away to start anew"
        )


class SqliteBulk:
    """Bulk statements over one connection inside an open transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
        self._all_new: dict[str, bool] = connection.info.setdefault(_ALL_NEW, {})
        """Whether the latest batch of a table was new in all its rows."""

    def upsert(self, plan: Plan, rows: Sequence[Row]) -> UpsertResult:
        """See `Transaction.upsert`. Under the write lock, what was compared is what will be written over."""
        batch = plan.distinct(rows)
        inserted, rejected = self._insert_expected(plan, batch)
        changed: list[Row] = []
        older: list[Key] = []
        updated = 0
        if inserted + len(rejected) < len(batch):
            refused = {id(row) for row, _ in rejected}
            fresh, changed, older = self._sort(plan, [row for row in batch if id(row) not in refused])
            new = self._write_each(plan, _upsert_sql, fresh)
            old = self._write_each(plan, _upsert_sql, changed)
            inserted += len(fresh) - len(new)
            updated = len(changed) - len(old)
            rejected = [*rejected, *new, *old]
        self._all_new[plan.table.name] = inserted == len(batch)
        return UpsertResult(
            inserted=inserted,
            updated=updated,
            unchanged=len(batch) - inserted - updated - len(older) - len(rejected),
            older=older,
            rejected=rejected,
            duplicates=len(rows) - len(batch),
        )

    def _insert_expected(self, plan: Plan, batch: Sequence[Row]) -> tuple[int, list[tuple[Row, str]]]:
        """As long as batches are all new (a first load), insert without looking: how many were, and what is refused.

        What was stored already is left alone; `_sort` then finds the rows just inserted unchanged.
        """
        if not self._all_new.get(plan.table.name):
            return 0, []
        before = self._driver.total_changes
        rejected = self._write_each(plan, _insert_absent_sql, batch)
        return self._driver.total_changes - before, rejected

    def _sort(self, plan: Plan, batch: Sequence[Row]) -> tuple[Sequence[Row], list[Row], list[Key]]:
        """New rows, different rows, and the keys of rows that the guard keeps out."""
        sql = _fetch_sql(plan.table, (*plan.compared, *plan.marks))
        width = len(plan.keys)
        found = self._driver.execute(sql, (_key_list([plan.key_of(row) for row in batch]),)).fetchall()
        if not found:
            return batch, [], []
        stored_key, contents = itemgetter(*range(width)), slice(width, width + len(plan.compared))
        stored = {stored_key(row): row for row in found}
        guard = width + plan.compared.index(plan.guard) if plan.guard is not None else None
        fresh: list[Row] = []
        changed: list[Row] = []
        older: list[Key] = []
        for row in batch:
            known = stored.get(plan.key_of(row))
            if known is None:
                fresh.append(row)
            elif known[contents] == plan.content_of(row) and not any(known[contents.stop :]):
                continue
            elif (
                guard is not None and plan.guard_of is not None and greater(known[guard], plan.guard_of(row))
            ):
                older.append(plan.key_of(row))
            else:
                changed.append(row)
        return fresh, changed, older

    def insert_new(self, plan: Plan, rows: Sequence[Row]) -> list[Row]:
        """Insert the rows whose key is not there yet (the first of each key) and return them."""
        first = plan.first_of_each(rows)
        found = {key for key, _ in self.fetch(plan.table, (), list(first))}
        fresh = [row for key, row in first.items() if key not in found]
        rejected = self._write_each(plan, _insert_sql, fresh)
        if rejected:
            raise refusal(plan, *rejected[0])
        return fresh

    def fetch(self, table: sa.Table, columns: Sequence[str], keys: Sequence[Key]) -> list[tuple[Key, Row]]:
        """Key and storage-neutral values of the rows with these keys."""
        if not keys:
            return []
        cursor = self._driver.execute(_fetch_sql(table, tuple(columns)), (_key_list(keys),))
        return _split_keys(table, columns, cursor.fetchall())

    def near(self, table: sa.Table, column: str, key: Key, limit: int) -> dict[Key, Any]:
        """`column` of the row with this key and of up to `limit` rows written after it; nothing if it is not stored.

        As one JSON text: its rows are read without holding up Python's other threads. Only numbers by a text key.
        """
        (own,) = table.primary_key.columns if len(table.primary_key.columns) == 1 else (None,)
        if (
            own is None
            or not isinstance(own.type, Text)
            or not isinstance(table.columns[column].type, BigInteger)
        ):
            return {}
        (text,) = self._driver.execute(_near_sql(table, column), (key, limit)).fetchone()
        return _decode_numbers(text)

    def live_keys(self, table: sa.Table, batch: int) -> Iterator[list[Key]]:
        """See `Transaction.live_keys`."""
        cursor = self._driver.execute(_live_sql(table))
        single = len(primary_key(table)) == 1
        while rows := cursor.fetchmany(batch):
            yield [row[0] for row in rows] if single else rows

    def page(
        self, table: sa.Table, columns: Sequence[str], after: Key | None, limit: int
    ) -> list[tuple[Key, Row]]:
        """The next rows in key order."""
        width = len(primary_key(table))
        bound = () if after is None else (after,) if width == 1 else tuple(after)
        cursor = self._driver.execute(_page_sql(table, tuple(columns), after is not None), (*bound, limit))
        return _split_keys(table, columns, cursor.fetchall())

    def delete(self, table: sa.Table, keys: Sequence[Key], at: str | None) -> int:
        """Delete the rows (`at` None) or mark them deleted; return how many were still alive."""
        if not keys:
            return 0
        bound = (_key_list(keys),) if at is None else (at, _key_list(keys))
        return self._driver.execute(_delete_sql(table, at is not None), bound).rowcount

    def _write_each(
        self, plan: Plan, statement: Callable[[Plan, tuple[str, ...]], str], rows: Sequence[Row]
    ) -> list[tuple[Row, str]]:
        """Write row by row in C; a refused row is noted and the rest goes on (a failed statement undoes itself)."""
        rejected: list[tuple[Row, str]] = []
        if not plan.clean and _may_be_unstorable(rows):
            problems = [check_row(plan, row) for row in rows]
            rejected = [(row, why) for row, why in zip(rows, problems, strict=True) if why is not None]
            rows = [row for row, why in zip(rows, problems, strict=True) if why is None]
        columns, filled = _without_empty_columns(plan, rows)
        sql, remaining = statement(plan, columns), iter(filled)
        while True:
            try:
                self._driver.executemany(sql, remaining)
            except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
                reason = diagnosis.data_reason(error)
                if reason is None or not self._driver.in_transaction:
                    raise
                row = rows[len(rows) - length_hint(remaining) - 1]
                rejected.append((row, check_row(plan, row) or reason))
            else:
                return rejected


def _without_empty_columns(plan: Plan, rows: Sequence[Row]) -> tuple[tuple[str, ...], Sequence[Row]]:
    """The columns with a value in any of many rows, and the rows in these alone.

    Left out, a column is NULL all the same, and the driver needs longer to bind a NULL than a text.
    """
    if len(rows) < _MANY_ROWS or {*map(len, rows)} != {len(plan.columns)}:
        return plan.columns, rows
    nulls = [place for place in plan.nullable if rows[0][place] is None]
    if not nulls:
        return plan.columns, rows
    pick = itemgetter(*nulls, 0)
    empty = {
        place
        for place, column in zip(nulls, zip(*map(pick, rows), strict=True), strict=False)
        if column.count(None) == len(rows)
    }
    filled = [place for place in range(len(plan.columns)) if place not in empty]
    if not empty or len(filled) < 2:
        return plan.columns, rows
    return tuple(plan.columns[place] for place in filled), [*map(itemgetter(*filled), rows)]


def _may_be_unstorable(rows: Sequence[Row]) -> bool:
    """Whether a text may have U+0000, which SQLite would take, or a lone surrogate: one fast pass over all texts."""
    try:
        return b"\\u0000" in msgspec.json.encode(rows)
    except UnicodeEncodeError:
        return True


def _key_list(keys: Sequence[Key]) -> str:
    return msgspec.json.encode(keys).decode()


def _split_keys(
    table: sa.Table, columns: Sequence[str], rows: list[tuple[Any, ...]]
) -> list[tuple[Key, Row]]:
    """Rows come as key columns followed by the wanted columns."""
    width = len(primary_key(table))
    truths = [n for n, name in enumerate(columns) if isinstance(table.columns[name].type, Boolean)]
    if truths:
        rows = [
            (
                *row[:width],
                *(bool(v) if n in truths and v is not None else v for n, v in enumerate(row[width:])),
            )
            for row in rows
        ]
    if width == 1:
        return [(row[0], row[1:]) for row in rows]
    return [(row[:width], row[width:]) for row in rows]


def _names(columns: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{_quote(name)}" for name in columns)


def _keys_in(table: sa.Table) -> str:
    keys = primary_key(table)
    if len(keys) == 1:
        return f"{_quote(keys[0])} IN (SELECT value FROM json_each(?))"
    parts = ", ".join(f"json_extract(value, '$[{n}]')" for n in range(len(keys)))
    return f"({_names(keys)}) IN (SELECT {parts} FROM json_each(?))"


@lru_cache(maxsize=512)
def _fetch_sql(table: sa.Table, columns: tuple[str, ...]) -> str:
    keys = primary_key(table)
    parts = ["j.value"] if len(keys) == 1 else [f"json_extract(j.value, '$[{n}]')" for n in range(len(keys))]
    match = " AND ".join(f"t.{_quote(name)} = {part}" for name, part in zip(keys, parts, strict=True))
    # CROSS JOIN fixes the order: one index lookup per key.
    wanted = _names((*keys, *columns), "t.")
    return f"SELECT {wanted} FROM json_each(?) AS j CROSS JOIN {_quote(table.name)} AS t ON {match}"


@lru_cache(maxsize=512)
def _near_sql(table: sa.Table, column: str) -> str:
    name, key = _quote(table.name), _quote(primary_key(table)[0])
    first = f"(SELECT rowid FROM {name} WHERE {key} = ?)"
    rows = (
        f"SELECT {key} AS k, {_quote(column)} AS v FROM {name} WHERE rowid >= {first} ORDER BY rowid LIMIT ?"
    )
    return f"SELECT json_group_object(k, v) FROM ({rows})"


@lru_cache(maxsize=512)
def _live_sql(table: sa.Table) -> str:
    bound = f" WHERE {_quote(DELETED_AT)} IS NULL" if DELETED_AT in table.columns else ""
    return f"SELECT {_names(primary_key(table))} FROM {_quote(table.name)}{bound}"


@lru_cache(maxsize=512)
def _page_sql(table: sa.Table, columns: tuple[str, ...], bounded: bool) -> str:
    keys = primary_key(table)
    marks = ", ".join("?" * len(keys))
    bound = f" WHERE ({_names(keys)}) > ({marks})" if bounded else ""
    wanted = _names((*keys, *columns))
    return f"SELECT {wanted} FROM {_quote(table.name)}{bound} ORDER BY {_names(keys)} LIMIT ?"


@lru_cache(maxsize=512)
def _delete_sql(table: sa.Table, soft: bool) -> str:
    name = _quote(table.name)
    if not soft:
        return f"DELETE FROM {name} WHERE {_keys_in(table)}"
    mark = _quote(DELETED_AT)
    return f"UPDATE {name} SET {mark} = ? WHERE {mark} IS NULL AND {_keys_in(table)}"


@lru_cache(maxsize=512)
def _insert_sql(plan: Plan, columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {_quote(plan.table.name)} ({_names(columns)}) VALUES ({marks})"


@lru_cache(maxsize=512)
def _insert_absent_sql(plan: Plan, columns: tuple[str, ...]) -> str:
    return f"{_insert_sql(plan, columns)} ON CONFLICT ({_names(plan.keys)}) DO NOTHING"


@lru_cache(maxsize=512)
def _upsert_sql(plan: Plan, columns: tuple[str, ...]) -> str:
    """A column of the plan that is not among `columns` becomes NULL."""
    base = f"{_insert_sql(plan, columns)} ON CONFLICT ({_names(plan.keys)}) DO"
    changes = [f"{_quote(name)} = excluded.{_quote(name)}" for name in plan.assigned]
    changes += [f"{_quote(name)} = NULL" for name in plan.marks]
    return f"{base} UPDATE SET {', '.join(changes)}" if changes else f"{base} NOTHING"
