"""The warehouse: which database, may its tables be made and altered, is it still the one that it was."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from rally_pipeline.doctor.finding import Finding, ok, problem, problem_of, warning
from rally_pipeline.doctor.home import file_system, is_network, judge_room, nearest, size, why_not_writable
from rally_pipeline.rally.tenant import known_tenant
from rally_pipeline.sell.apply import known_account
from rally_pipeline.sell.device import Device, read_device
from rally_pipeline.settings import Settings
from rally_pipeline.warehouse import Warehouse, WarehouseBusy, WarehouseError, opening, postgresql, sqlite
from rally_pipeline.warehouse.diagnosis import DATABASE_ERRORS, diagnose
from rally_pipeline.warehouse.tables import SCHEMA_VERSION, warehouse_identity

LOCK_SECONDS = 3.0
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 5
_RESTORED = (
    "a copy made with `cp -a`, or a machine that was set back, cannot be recognised: after a restore or copy say"
    " `rally-pipeline restored`"
)


@dataclass(slots=True)
class Facts:
    """What the warehouse knows that other checks compare with; all None on a fresh machine."""

    identity: str | None = None
    tenant: str | None = None
    account: str | None = None
    device: Device | None = None


def examine_warehouse(settings: Settings, facts: Facts) -> Iterator[Finding]:
    """Rights, version, room and identity; fills `facts`. Nothing is left behind."""
    url = opening.parse_url(settings.warehouse)
    if url.get_backend_name() == "sqlite":
        yield from _examine_sqlite(settings, facts, sqlite.database_file(url))
    else:
        yield from _examine_postgresql(settings, facts, url)


# ---------------------------------------------------------------------- SQLite


def _examine_sqlite(settings: Settings, facts: Facts, file: Path) -> Iterator[Finding]:
    folder = nearest(file.parent)
    refusal = why_not_writable(folder)
    if refusal:
        yield problem(
            "warehouse", f"{folder} cannot be written: {refusal}", "check its permissions, or WAREHOUSE_URL"
        )
        return
    fresh = not file.exists() or file.stat().st_size == 0
    if fresh:
        mode = _try_fresh(folder)
        rights = f"SQLite {sqlite3.sqlite_version}, {file}: not there yet, made by the first sync"
    else:
        if not os.access(file, os.W_OK):
            yield problem("warehouse", f"{file} may not be written", "check its permissions")
            return
        try:
            mode = _try_scratch(file, mode="rw")
        except sqlite3.Error as error:
            yield _trouble(error, f"the warehouse file {file}")
            return
        rights = f"SQLite {sqlite3.sqlite_version}, {file}"
    free = shutil.disk_usage(folder).free
    yield ok(
        "warehouse",
        f"{rights}; tables can be made, altered and dropped; journal mode {mode.upper()}; {size(free)} free",
    )
    yield from judge_room("warehouse", folder, free)
    kind = file_system(folder)
    if kind is not None and is_network(kind):
        yield problem(
            "warehouse",
            f"{folder} is on a network file system ({kind}), whose locks SQLite cannot trust",
            "use a disk of this machine, or PostgreSQL",
        )
    known = not fresh and _has_identity_sqlite(file)
    if mode != "wal" and (fresh or known):
        yield warning(
            "warehouse",
            f"journal mode {mode.upper()} instead of WAL",
            "readers and writers wait for each other",
        )
    if known:
        yield from _examine_identity(settings, facts)


def _try_fresh(folder: Path) -> str:
    """A scratch database of its own in the folder, removed again; the journal mode that it takes there."""
    with tempfile.TemporaryDirectory(prefix=".rally-pipeline-doctor-", dir=folder) as scratch:
        return _try_scratch(Path(scratch) / "scratch.db", mode="rwc", journal="WAL")


def _try_scratch(file: Path, *, mode: str, journal: str | None = None) -> str:
    """Make, fill, alter and drop a table, and take it all back; the journal mode."""
    connection = sqlite3.connect(
        f"{file.as_uri()}?mode={mode}", uri=True, timeout=LOCK_SECONDS, isolation_level=None
    )
    with closing(connection):
        (found,) = connection.execute(
            "PRAGMA journal_mode" if journal is None else f"PRAGMA journal_mode={journal}"
        ).fetchone()
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _scratch_statements(f'"{_scratch_name()}"'):
                connection.execute(statement)
        finally:
            connection.execute("ROLLBACK")
    return str(found)


def _has_identity_sqlite(file: Path) -> bool:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=LOCK_SECONDS)) as connection:
        query = "SELECT count(*) FROM sqlite_master WHERE name = ?"
        (found,) = connection.execute(query, (warehouse_identity.name,)).fetchone()
        return bool(found) and _is_present_version(
            connection.execute(f"SELECT schema_version FROM {warehouse_identity.name}").fetchone()
        )


# ---------------------------------------------------------------------- PostgreSQL


def _examine_postgresql(settings: Settings, facts: Facts, url: sa.URL) -> Iterator[Finding]:
    place = f"the warehouse {url.host or 'on the local socket'}:{url.port or 5432}/{url.database}"
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})
    schema = settings.warehouse_schema
    engine = postgresql.create_engine(url, schema, LOCK_SECONDS)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")
            (version,) = connection.exec_driver_sql("SELECT current_setting('server_version')").one()
            postgresql.check_server(connection, place)
            made = _try_schema(connection, schema, place)
            known = not made and _has_identity_postgresql(connection)
            connection.rollback()
    except DATABASE_ERRORS as error:
        yield _trouble(error, place)
        return
    except WarehouseError as error:
        yield problem_of("warehouse", error)
        return
    finally:
        engine.dispose()
    where = f", schema {schema}{', made by the first sync' if made else ''}" if schema else ""
    yield ok(
        "warehouse",
        f"PostgreSQL {str(version).split(' ')[0]}, {place.removeprefix('the warehouse ')}{where}; tables can be made,"
        " altered and dropped",
    )
    if known:
        yield from _examine_identity(settings, facts)


def _try_schema(connection: sa.Connection, schema: str | None, place: str) -> bool:
    """A scratch table in the schema, which is made where it is missing; everything is to be rolled back.

    Returns whether the schema had to be made.
    """
    missing = not postgresql.has_schema(connection)
    if missing:
        postgresql.create_schema(connection, schema, place)
    for statement in _scratch_statements(f'"{_scratch_name()}"'):
        connection.exec_driver_sql(statement)
    return missing


def _has_identity_postgresql(connection: sa.Connection) -> bool:
    query = "SELECT to_regclass(quote_ident(current_schema()) || '.' || quote_ident(%s)) IS NOT NULL"
    if not connection.exec_driver_sql(query, (warehouse_identity.name,)).scalar():
        return False
    found = connection.execute(sa.select(warehouse_identity.c.schema_version)).first()
    return _is_present_version(None if found is None else tuple(found))


# ---------------------------------------------------------------------- both


def _scratch_name() -> str:
    return f"rally_pipeline_doctor_{uuid.uuid4().hex[:12]}"


def _scratch_statements(table: str) -> tuple[str, ...]:
    return (
        f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)",
        f"INSERT INTO {table} (id) VALUES (1)",
        f"ALTER TABLE {table} ADD COLUMN name TEXT",
        f"DROP TABLE {table}",
    )


def _trouble(error: Exception, place: str) -> Finding:
    told = diagnose(error, place)
    if isinstance(told, WarehouseBusy):
        return warning("warehouse", f"{told}; rights were not tried", "run doctor again when nothing writes")
    return problem("warehouse", str(told) if told is not None else f"{place}: {type(error).__name__}")


def _is_present_version(row: tuple[object, ...] | None) -> bool:
    """Whether opening the warehouse migrates nothing. A newer one is refused by the opening, which says so."""
    return row is not None and int(str(row[0])) >= SCHEMA_VERSION


def _examine_identity(settings: Settings, facts: Facts) -> Iterator[Finding]:
    """Is it the warehouse that it was, and whose rows does it hold."""
    with (
        Warehouse.open(
            settings.warehouse,
            schema=settings.warehouse_schema,
            home=settings.home_path,
            lock_wait_seconds=LOCK_SECONDS,
        ) as opened,
        opened.reading() as tx,
    ):
        facts.tenant, facts.account, facts.device = known_tenant(tx), known_account(tx), read_device(tx)
        identity = tx.identity()
    facts.identity = identity.id
    if identity.moved:
        yield problem(
            "warehouse",
            f"it may be a copy or an older state of another one ({'; '.join(identity.reasons)})",
            "`rally-pipeline restored`",
        )
    else:
        yield ok("warehouse", f"nothing shows that it was restored or copied ({_RESTORED})")
