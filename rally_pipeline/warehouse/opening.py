"""From a URL to a usable warehouse: checks, creation, migration, each refusal in one clear line."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rally_pipeline.clock import Clock
from rally_pipeline.warehouse import evolution, identity, sqlite
from rally_pipeline.warehouse.errors import WarehouseDamaged, WarehouseError, WarehouseNewer
from rally_pipeline.warehouse.identity import Witness
from rally_pipeline.warehouse.sessions import Sessions
from rally_pipeline.warehouse.tables import SCHEMA_VERSION, metadata, warehouse_identity

_SCHEMA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_SQLITE = ("sqlite", "sqlite+pysqlite")
_POSTGRESQL = ("postgresql+psycopg", "postgresql", "postgres")
"""All meant as psycopg 3, the driver that comes with the package."""

_CREATION_LOCK = 7_304_911_262
"""Advisory lock of PostgreSQL that creating processes take in turn."""


def parse_url(url: str | Path) -> sa.URL:
    """The URL's parts; the text itself is never repeated, for it may hold a password.

    Raises:
        WarehouseError: not a URL, or another database.
    """
    if isinstance(url, Path):
        return sa.URL.create("sqlite", database=str(url))
    text = url.strip()
    if text.count("@") > 1:
        raise WarehouseError(
            "WAREHOUSE_URL: write an @ in the user, the password or an option as %40 (and : / ? # % there as %3A %2F"
            " %3F %23 %25), so that the host can be told from them"
        )
    try:
        parsed = sa.make_url(text)
        parsed = parsed.set(drivername=parsed.drivername.lower())
    except (sa.exc.ArgumentError, ValueError):
        raise WarehouseError(
            "WAREHOUSE_URL is not a database URL: use sqlite:////data/warehouse.db or "
            "postgresql+psycopg://user:password@host:5432/database"
        ) from None
    if parsed.drivername in _POSTGRESQL:
        return _checked_server(parsed.set(drivername="postgresql+psycopg"))
    if parsed.drivername not in _SQLITE:
        raise WarehouseError(
            f"WAREHOUSE_URL: '{parsed.drivername}' is not supported; use sqlite or postgresql+psycopg"
        )
    return parsed


def _checked_server(url: sa.URL) -> sa.URL:
    """Refuse what the driver would refuse in words of its own, or only after a wait."""
    from psycopg import pq

    host = url.host or "on the local socket"
    if url.port is not None and not 1 <= url.port <= 65_535:
        raise WarehouseError("WAREHOUSE_URL: the port is not between 1 and 65535")
    if not url.database:
        raise WarehouseError(
            f"WAREHOUSE_URL: the database's name is missing after {host}:{url.port or 5432}/"
        )
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    foreign = sorted(url.query.keys() - known)
    if foreign:
        raise WarehouseError(
            f"WAREHOUSE_URL: '{foreign[0]}' is no option of a connection to PostgreSQL; the tables' schema is named by"
            " WAREHOUSE_SCHEMA"
        )
    return url


def open_sqlite(
    url: sa.URL, lock_wait_seconds: float, clock: Clock
) -> tuple[Sessions, dict[str, Any], Witness]:
    """Check the file, create what is missing; return sessions, place and witness."""
    file = sqlite.database_file(url)
    witness = Witness(file.with_name(f"{file.name}.witness"))
    fresh = sqlite.prepare_file(file, witness.file)
    sessions = Sessions(sqlite.create_engine(file, lock_wait_seconds), f"the warehouse file {file}", clock)
    try:
        if not fresh:
            with sessions.open(reading=True) as connection:
                sqlite.check_file(connection, file)
        place = identity.sqlite_place(file)
        ensure_own_tables(sessions, place, witness, clock)
    except BaseException:
        sessions.close()
        raise
    return sessions, place, witness


def open_postgresql(
    url: sa.URL, schema: str | None, home: Path | None, lock_wait_seconds: float, clock: Clock
) -> tuple[Sessions, dict[str, Any], Witness | None]:
    """Check the server, create what is missing; return sessions, place and witness."""
    from rally_pipeline.warehouse import postgresql

    if schema is not None and (not _SCHEMA_NAME.fullmatch(schema) or schema.lower().startswith("pg_")):
        raise WarehouseError(
            "WAREHOUSE_SCHEMA must be a plain name: letters, digits and underscores, at most 63, not beginning with pg_"
        )
    where = f"the warehouse {url.host or 'on the local socket'}:{url.port or 5432}/{url.database}"
    witness = None
    if home is not None:
        mark = hashlib.sha256(f"{where} {schema} {sorted(url.query.items())}".encode()).hexdigest()[:12]
        witness = Witness(home / f"warehouse-{mark}.witness")
    sessions = Sessions(postgresql.create_engine(url, schema, lock_wait_seconds), where, clock)
    try:
        with sessions.open(reading=True) as connection:
            postgresql.check_server(connection, where)
            missing = not postgresql.has_schema(connection)
        if missing:
            with sessions.open(reading=False) as connection:
                lock_creation(connection)
                postgresql.create_schema(connection, schema, where)
                sessions.commit(connection, "create-schema", None)
        ensure_own_tables(sessions, None, witness, clock)
        with sessions.open(reading=True) as connection:
            place = identity.postgresql_place(connection)
    except BaseException:
        sessions.close()
        raise
    return sessions, place, witness


def ensure_own_tables(
    sessions: Sessions, place: dict[str, Any] | None, witness: Witness | None, clock: Clock
) -> None:
    """Create or migrate the warehouse's own tables in one transaction; several processes may try at once.

    Raises:
        WarehouseNewer: written by a newer package version.
        WarehouseDamaged: some of the own tables are there and others are not.
    """
    with sessions.open(reading=True) as connection:
        version = _stored_version(connection, sessions.place)
    if version == SCHEMA_VERSION:
        return
    created = None
    with sessions.open(reading=False) as connection:
        lock_creation(connection)
        version = _stored_version(connection, sessions.place)
        if version is None:
            evolution.evolve(connection, metadata.sorted_tables)
            place = place or identity.postgresql_place(connection)
            created = identity.create(connection, place, clock.now())
        elif version < SCHEMA_VERSION:
            evolution.evolve(connection, metadata.sorted_tables)
            connection.execute(warehouse_identity.update().values(schema_version=SCHEMA_VERSION))
        sessions.commit(connection, "create-warehouse", None)
    if created is not None and witness is not None:
        witness.raise_to(created, 0)


def lock_creation(connection: sa.Connection) -> None:
    """Let one process at a time create or alter tables; SQLite's write lock does that already."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})")


def _stored_version(connection: sa.Connection, where: str) -> int | None:
    """The version of the own tables; None if there are none yet."""
    found = evolution.existing_columns(connection)
    there = [table.name for table in metadata.sorted_tables if table.name in found]
    if not there:
        return None
    version = None
    if warehouse_identity.name in there:
        version = connection.execute(sa.select(warehouse_identity.c.schema_version)).scalar()
    if version is not None and version > SCHEMA_VERSION:
        raise WarehouseNewer(
            f"{where} was migrated by a newer version of rally_pipeline (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): upgrade the package here"
        )
    missing = sorted({table.name for table in metadata.sorted_tables} - set(there))
    if version is None or (missing and version == SCHEMA_VERSION):
        raise WarehouseDamaged(
            f"{where} is incomplete: {', '.join(missing) or 'the identity row'} is missing beside {', '.join(there)}; "
            "restore a backup, or drop these tables to start anew"
        )
    return int(version)
