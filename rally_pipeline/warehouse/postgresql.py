"""PostgreSQL: the connection rules of a served warehouse, and its bulk statements.

A batch travels as one COPY into a temporary staging table of the connection (emptied by each commit) and is
merged by one INSERT … ON CONFLICT that passes over unchanged rows before it would lock them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from psycopg import Error as DriverError
from sqlalchemy.dialects import postgresql

from rally_pipeline.warehouse import diagnosis
from rally_pipeline.warehouse.errors import WarehouseError
from rally_pipeline.warehouse.plans import (
    DELETED_AT,
    Key,
    Plan,
    Row,
    UpsertResult,
    check_row,
    primary_key,
    refusal,
)
from rally_pipeline.warehouse.sessions import STAGES
from rally_pipeline.warehouse.types import ExactDecimal, Instant, Json
from rally_pipeline.warehouse.values import canonical_json

MINIMUM_VERSION = 13
CONNECT_SECONDS = 10
_dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_INSTANT_TEXT = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def _quote(name: str) -> str:
    return str(_dialect.identifier_preparer.quote_identifier(name))


def create_engine(url: sa.URL, schema: str | None, lock_wait_seconds: float) -> sa.Engine:
    """An engine whose connections follow the storage rules; nothing is opened yet."""
    defaults = {"connect_timeout": CONNECT_SECONDS, "application_name": "rally_pipeline"}
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        pool_use_lifo=True,
        pool_pre_ping=True,
        connect_args={name: value for name, value in defaults.items() if name not in url.query},
    )
    settings = [
        "SET synchronous_commit = on",
        "SET TimeZone = 'UTC'",
        f"SET lock_timeout = {int(lock_wait_seconds * 1000)}",
    ]
    if schema is not None:
        settings.append(f"SET search_path TO {_quote(schema)}")

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.autocommit = True
        connection.execute("; ".join(settings))
        connection.autocommit = False

    return engine


def check_server(connection: sa.Connection, place: str) -> None:
    """Refuse servers that cannot keep the promises.

    Raises:
        WarehouseError: too old, not UTF-8, or read-only.
    """
    version, encoding, read_only = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding'), "
        "pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool"
    ).one()
    if version < MINIMUM_VERSION:
        raise WarehouseError(
            f"{place}: PostgreSQL {version} is too old, {MINIMUM_VERSION} or newer is needed"
        )
    if encoding != "UTF8":
        raise WarehouseError(
            f"{place}: the database's encoding is {encoding}; it must be UTF8 to hold every text"
        )
    if read_only:
        raise WarehouseError(f"{place}: the server is read-only (a standby?): use the primary")


def has_schema(connection: sa.Connection) -> bool:
    """Whether there is a schema to work in."""
    return connection.exec_driver_sql("SELECT current_schema()").scalar() is not None


def create_schema(connection: sa.Connection, schema: str | None, place: str) -> None:
    """Create the schema that is missing.

    Raises:
        WarehouseError: none is named.
    """
    if schema is None:
        raise WarehouseError(f"{place}: the user has no schema to work in; set WAREHOUSE_SCHEMA")
    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_quote(schema)}")


class PostgresBulk:
    """Bulk statements over one connection inside an open transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._driver: Any = connection.connection.dbapi_connection
        self._stages: dict[str, bool] = connection.info.setdefault(STAGES, {})
        self._filled: set[str] = set()

    def upsert(self, plan: Plan, rows: Sequence[Row]) -> UpsertResult:
        """See `Transaction.upsert`."""
        batch = plan.distinct(rows)
        answers, rejected = self._merge_accepted(plan, batch)
        inserted = sum(new for new, _, _ in answers)
        updated = sum(changed for _, changed, _ in answers)
        older = [key for _, _, keys in answers for key in keys]
        return UpsertResult(
            inserted=inserted,
            updated=updated,
            unchanged=len(batch) - inserted - updated - len(older) - len(rejected),
            older=older,
            rejected=rejected,
            duplicates=len(rows) - len(batch),
        )

    def insert_new(self, plan: Plan, rows: Sequence[Row]) -> list[Row]:
        """Insert the rows whose key is not there yet (the first of each key) and return them."""
        first = plan.first_of_each(rows)
        with _spoken():
            try:
                stage = self._fill(plan, list(first.values()))
                insert = f"{_insert_sql(plan, stage)} RETURNING {_neutral(plan.table, plan.keys)}"
                new = self._driver.execute(insert, prepare=False).fetchall()
            except (DriverError, UnicodeEncodeError) as error:
                reason = diagnosis.data_reason(error)
                if reason is None:
                    raise
                bad = [
                    (row, problem) for row in first.values() if (problem := check_row(plan, row)) is not None
                ]
                raise refusal(plan, *(bad[0] if bad else (rows[0], reason))) from None
        keys = {_key(key) for key in new}
        return [row for key, row in first.items() if key in keys]

    def fetch(self, table: sa.Table, columns: Sequence[str], keys: Sequence[Key]) -> list[tuple[Key, Row]]:
        """Key and storage-neutral values of the rows with these keys."""
        if not keys:
            return []
        with _spoken():
            found = self._driver.execute(
                _fetch_sql(table, tuple(columns)), _key_lists(table, keys)
            ).fetchall()
        return _split_keys(table, columns, found)

    def page(
        self, table: sa.Table, columns: Sequence[str], after: Key | None, limit: int
    ) -> list[tuple[Key, Row]]:
        """The next rows in key order."""
        bound = [] if after is None else [after] if len(primary_key(table)) == 1 else [*after]
        with _spoken():
            found = self._driver.execute(_page_sql(table, tuple(columns), after is not None), [*bound, limit])
            return _split_keys(table, columns, found.fetchall())

    def delete(self, table: sa.Table, keys: Sequence[Key], at: str | None) -> int:
        """Delete the rows (`at` None) or mark them deleted; return how many were still alive."""
        if not keys:
            return 0
        bound = _key_lists(table, keys) if at is None else [at, *_key_lists(table, keys)]
        with _spoken():
            return int(self._driver.execute(_delete_sql(table, at is not None), bound).rowcount)

    def _merge_accepted(
        self, plan: Plan, batch: Sequence[Row]
    ) -> tuple[list[tuple[int, int, list[Key]]], list[tuple[Row, str]]]:
        """Merge what the database accepts: a refused batch is halved until the bad rows stand alone."""
        answers: list[tuple[int, int, list[Key]]] = []
        rejected: list[tuple[Row, str]] = []
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            reason = self._try_merge(plan, part, answers)
            if reason is None:
                continue
            bad = {
                position: why
                for position, row in enumerate(part)
                if (why := check_row(plan, row)) is not None
            }
            if bad:
                rejected.extend((part[position], why) for position, why in bad.items())
                good = [row for position, row in enumerate(part) if position not in bad]
                waiting.extend([good] if good else [])
            elif len(part) == 1:
                rejected.append((part[0], reason))
            else:
                middle = len(part) // 2
                waiting.extend((part[middle:], part[:middle]))
        return answers, rejected

    def _try_merge(
        self, plan: Plan, part: Sequence[Row], answers: list[tuple[int, int, list[Key]]]
    ) -> str | None:
        """Merge the rows or leave no trace; the reason if a row's values are to blame."""
        with _spoken():
            self._driver.execute("SAVEPOINT rally_batch", prepare=False)
            try:
                stage = self._fill(plan, part)
                answer = self._merge(plan, stage, len(part))
            except (DriverError, UnicodeEncodeError) as error:
                reason = diagnosis.data_reason(error)
                if reason is None:
                    raise
                self._driver.execute("ROLLBACK TO rally_batch", prepare=False)
                self._stages.clear()
                return reason
            self._driver.execute("RELEASE rally_batch", prepare=False)
            answers.append(answer)
        return None

    def _merge(self, plan: Plan, stage: str, size: int) -> tuple[int, int, list[Key]]:
        """Merge what is staged: numbers of inserted and updated rows, and the keys that the guard keeps out.

        As long as batches are all new (a first load) a plain insert does, at a third less work for the server.
        """
        new = 0
        if self._stages[stage]:
            new = self._driver.execute(_insert_sql(plan, stage), prepare=False).rowcount
        self._stages[stage] = new == size
        if new == size:
            return new, 0, []
        late, changed, refused = self._driver.execute(_merge_sql(plan, stage), prepare=False).fetchone()
        self._stages[stage] = late == size
        return new + late, changed, [_key(tuple(key.values())) for key in refused]

    def _fill(self, plan: Plan, rows: Sequence[Row]) -> str:
        """Put the rows, and nothing else, into the plan's staging table; return its quoted name."""
        stage = _stage_name(plan)
        if stage not in self._stages:
            self._driver.execute(_stage_sql(plan, stage), prepare=False)
            self._stages[stage] = True
        if stage in self._filled:
            self._driver.execute(f"DELETE FROM {stage}", prepare=False)
        self._filled.add(stage)
        with self._driver.cursor().copy(f"COPY {stage} FROM STDIN") as copy:
            write = copy.write_row
            for row in rows:
                write(row)
        return stage


@contextlib.contextmanager
def _spoken() -> Iterator[None]:
    """Raw driver errors leave in SQLAlchemy's clothes, as those of its own statements do."""
    try:
        yield
    except DriverError as error:
        raise sa.exc.DBAPIError(None, None, error, hide_parameters=True) from None


def _key(values: tuple[Any, ...]) -> Key:
    return values[0] if len(values) == 1 else tuple(values)


def _split_keys(
    table: sa.Table, columns: Sequence[str], rows: list[tuple[Any, ...]]
) -> list[tuple[Key, Row]]:
    """Rows come as key columns followed by the wanted columns; the server's JSON text gets its canonical form."""
    width = len(primary_key(table))
    json = {width + n for n, name in enumerate(columns) if isinstance(table.columns[name].type, Json)}
    if json:
        rows = [
            tuple(canonical_json(v) if n in json and v is not None else v for n, v in enumerate(row))
            for row in rows
        ]
    if width == 1:
        return [(row[0], row[1:]) for row in rows]
    return [(row[:width], row[width:]) for row in rows]


def _key_lists(table: sa.Table, keys: Sequence[Key]) -> list[list[Any]]:
    return [list(keys)] if len(primary_key(table)) == 1 else [list(part) for part in zip(*keys, strict=True)]


def _type(table: sa.Table, column: str) -> str:
    """The column's type for a cast; a collation is no part of that, and an array of it is no type."""
    return str(table.columns[column].type.compile(dialect=_dialect)).partition(" COLLATE ")[0]


def _names(columns: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{_quote(name)}" for name in columns)


def _neutral(table: sa.Table, columns: Sequence[str], prefix: str = "") -> str:
    """The columns as storage-neutral values."""
    parts = []
    for name in columns:
        kind, quoted = table.columns[name].type, f"{prefix}{_quote(name)}"
        if isinstance(kind, Instant):
            quoted = _INSTANT_TEXT.format(quoted)
        elif isinstance(kind, (ExactDecimal, Json)):
            quoted = f"{quoted}::text"
        parts.append(quoted)
    return ", ".join(parts)


@lru_cache(maxsize=512)
def _stage_name(plan: Plan) -> str:
    shape = ",".join((plan.table.name, *(f"{name} {_type(plan.table, name)}" for name in plan.columns)))
    return _quote(f"rally_stage_{hashlib.sha256(shape.encode()).hexdigest()[:16]}")


@lru_cache(maxsize=512)
def _stage_sql(plan: Plan, stage: str) -> str:
    columns = ", ".join(f"{_quote(name)} {_type(plan.table, name)}" for name in plan.columns)
    return f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ({columns}) ON COMMIT DELETE ROWS"


@lru_cache(maxsize=512)
def _merge_sql(plan: Plan, stage: str) -> str:
    """One statement: each row is looked up by its key, and only new and different ones are written.

    Answers with the numbers of inserted and updated rows and the keys that the guard keeps out.
    """
    table, first = _quote(plan.table.name), _quote(plan.keys[0])
    keys = " AND ".join(f"o.{_quote(name)} = s.{_quote(name)}" for name in plan.keys)
    stored = _names((*plan.keys, *plan.compared, *plan.marks), "o.")
    older = "FALSE" if plan.guard is None else f"(t.{_quote(plan.guard)} > s.{_quote(plan.guard)}) IS TRUE"
    # OFFSET 0 keeps the planner from joining by a scan of the whole table, whatever its statistics say.
    sifted = (
        f"SELECT s.*, {older} AS rally_older FROM {stage} s "
        f"LEFT JOIN LATERAL (SELECT {stored} FROM {table} o WHERE {keys} OFFSET 0) t ON TRUE "
        f"WHERE t.{first} IS NULL OR {_differs(plan, 's')}"
    )
    insert = (
        f"INSERT INTO {table} AS t ({_names(plan.columns)}) SELECT {_names(plan.columns)} FROM sifted "
        f"WHERE NOT rally_older ON CONFLICT ({_names(plan.keys)}) DO {_update(plan)} RETURNING t.xmax = 0 AS fresh"
    )
    refused = f"SELECT {_neutral(plan.table, plan.keys)} FROM sifted WHERE rally_older"
    # xmax is 0 for a row that this statement inserted and its locker's number for one that it updated.
    return (
        f"WITH sifted AS MATERIALIZED ({sifted}), merged AS ({insert}) "
        f"SELECT count(*) FILTER (WHERE fresh), count(*) FILTER (WHERE NOT fresh), "
        f"ARRAY(SELECT row_to_json(k) FROM ({refused}) k) FROM merged"
    )


def _update(plan: Plan) -> str:
    """What happens to a row that another session inserted between look-up and insert is judged again."""
    if not plan.assigned:
        return "NOTHING"
    changes = [f"{_quote(name)} = excluded.{_quote(name)}" for name in plan.assigned]
    changes += [f"{_quote(name)} = NULL" for name in plan.marks]
    condition = _differs(plan, "excluded")
    if plan.guard is not None:
        condition += f" AND (t.{_quote(plan.guard)} > excluded.{_quote(plan.guard)}) IS NOT TRUE"
    return f"UPDATE SET {', '.join(changes)} WHERE {condition}"


def _differs(plan: Plan, incoming: str) -> str:
    differs = [f"t.{_quote(name)} IS DISTINCT FROM {incoming}.{_quote(name)}" for name in plan.compared]
    differs += [f"t.{_quote(name)} IS NOT NULL" for name in plan.marks]
    return f"({' OR '.join(differs) or 'FALSE'})"


@lru_cache(maxsize=512)
def _insert_sql(plan: Plan, stage: str) -> str:
    return (
        f"INSERT INTO {_quote(plan.table.name)} ({_names(plan.columns)}) SELECT {_names(plan.columns)} FROM {stage} "
        f"ON CONFLICT ({_names(plan.keys)}) DO NOTHING"
    )


def _keys_in(table: sa.Table) -> str:
    keys = primary_key(table)
    if len(keys) == 1:
        return f"{_quote(keys[0])} = ANY(%s::{_type(table, keys[0])}[])"
    lists = ", ".join(f"%s::{_type(table, name)}[]" for name in keys)
    return f"({_names(keys)}) IN (SELECT * FROM unnest({lists}))"


@lru_cache(maxsize=512)
def _fetch_sql(table: sa.Table, columns: tuple[str, ...]) -> str:
    wanted = _neutral(table, (*primary_key(table), *columns))
    return f"SELECT {wanted} FROM {_quote(table.name)} WHERE {_keys_in(table)}"


@lru_cache(maxsize=512)
def _page_sql(table: sa.Table, columns: tuple[str, ...], bounded: bool) -> str:
    keys = primary_key(table)
    marks = ", ".join(f"%s::{_type(table, name)}" for name in keys)
    bound = f" WHERE ({_names(keys)}) > ({marks})" if bounded else ""
    wanted = _neutral(table, (*keys, *columns))
    return f"SELECT {wanted} FROM {_quote(table.name)}{bound} ORDER BY {_names(keys)} LIMIT %s"


@lru_cache(maxsize=512)
def _delete_sql(table: sa.Table, soft: bool) -> str:
    name = _quote(table.name)
    if not soft:
        return f"DELETE FROM {name} WHERE {_keys_in(table)}"
    mark = _quote(DELETED_AT)
    return f"UPDATE {name} SET {mark} = %s::timestamptz WHERE {mark} IS NULL AND {_keys_in(table)}"
