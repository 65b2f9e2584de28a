"""PostgreSQL: the connection rules of a served warehouse, and its bulk statements.

A batch travels as one COPY into a temporary staging table of the connection (emptied by each commit) and is
merged by one INSERT … ON CONFLICT that passes over unchanged rows before it would lock them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from psycopg import Error as DriverError

from rally_pipeline.warehouse import diagnosis
from rally_pipeline.warehouse import postgresql_statements as statements
from rally_pipeline.warehouse.errors import WarehouseError
from rally_pipeline.warehouse.plans import (
    Key,
    Plan,
    Row,
    UpsertResult,
    check_row,
    primary_key,
    refusal,
)
from rally_pipeline.warehouse.quoting import quote_always
from rally_pipeline.warehouse.sessions import STAGES
from rally_pipeline.warehouse.types import Json
from rally_pipeline.warehouse.values import canonical_json

MINIMUM_VERSION = 14
CONNECT_SECONDS = 10
IDLE_SECONDS = 300


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
    quote_always(engine.dialect)
    settings = [
        "SET synchronous_commit = on",
        "SET TimeZone = 'UTC'",
        f"SET lock_timeout = {int(lock_wait_seconds * 1000)}",
        # A stopped process or a lost machine must not keep its locks for ever: no transaction of ours idles.
        f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'",
        "SET tcp_keepalives_idle = 60",
        "SET tcp_keepalives_interval = 10",
        "SET tcp_keepalives_count = 3",
    ]
    if schema is not None:
        settings.append(f"SET search_path TO {statements.quote(schema)}")

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
    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {statements.quote(schema)}")


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
                returning = statements.neutral(plan.table, plan.keys)
                new = self._run(f"{statements.insert(plan, stage)} RETURNING {returning}").fetchall()
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
                statements.fetch(table, tuple(columns)), _key_lists(table, keys)
            ).fetchall()
        return _split_keys(table, columns, found)

    def near(self, table: sa.Table, column: str, key: Key, limit: int) -> dict[Key, Any]:
        """`column` of the row with this key and of up to `limit` rows behind it; nothing if it is not stored."""
        if len(primary_key(table)) > 1:
            return {}
        with _spoken():
            found = self._driver.execute(statements.near(table, column), [key, limit]).fetchall()
        return dict(found)

    def live_keys(self, table: sa.Table, batch: int) -> Iterator[list[Key]]:
        """See `Transaction.live_keys`."""
        single = len(primary_key(table)) == 1
        with _spoken(), self._driver.cursor(name="rally_live_keys") as cursor:
            cursor.execute(statements.live(table))
            while rows := cursor.fetchmany(batch):
                yield [row[0] for row in rows] if single else rows

    def page(
        self, table: sa.Table, columns: Sequence[str], after: Key | None, limit: int
    ) -> list[tuple[Key, Row]]:
        """The next rows in key order."""
        bound = [] if after is None else [after] if len(primary_key(table)) == 1 else [*after]
        with _spoken():
            found = self._driver.execute(
                statements.page(table, tuple(columns), after is not None), [*bound, limit]
            )
            return _split_keys(table, columns, found.fetchall())

    def delete(self, table: sa.Table, keys: Sequence[Key], at: str | None) -> int:
        """Delete the rows (`at` None) or mark them deleted; return how many were still alive."""
        if not keys:
            return 0
        bound = _key_lists(table, keys) if at is None else [at, *_key_lists(table, keys)]
        with _spoken():
            return int(self._driver.execute(statements.delete(table, at is not None), bound).rowcount)

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
            self._run("SAVEPOINT rally_batch")
            try:
                stage = self._fill(plan, part)
                answer = self._merge(plan, stage, len(part))
            except (DriverError, UnicodeEncodeError) as error:
                reason = diagnosis.data_reason(error)
                if reason is None:
                    raise
                self._run("ROLLBACK TO rally_batch")
                self._stages.clear()
                return reason
            self._run("RELEASE rally_batch")
            answers.append(answer)
        return None

    def _merge(self, plan: Plan, stage: str, size: int) -> tuple[int, int, list[Key]]:
        """Merge what is staged: numbers of inserted and updated rows, and the keys that the guard keeps out.

        As long as batches are all new (a first load) a plain insert does, which saves the look-ups.
        """
        new = self._run(statements.insert(plan, stage)).rowcount if self._stages[stage] else 0
        if new == size:
            return new, 0, []
        late, changed, refused = self._run(statements.merge(plan, stage)).fetchone()
        self._stages[stage] = late == size
        return new + late, changed, [_key(tuple(key.values())) for key in refused]

    def _run(self, sql: str) -> Any:
        """Planned anew each time: the staging table's size, which the plan hangs on, is another each time."""
        return self._driver.execute(sql, (), prepare=False)

    def _fill(self, plan: Plan, rows: Sequence[Row]) -> str:
        """Put the rows, and nothing else, into the plan's staging table; return its quoted name."""
        stage = statements.stage_name(plan)
        if stage not in self._stages:
            self._run(statements.create_stage(plan, stage))
            self._stages[stage] = True
        if stage in self._filled:
            self._run(f"DELETE FROM {stage}")
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
