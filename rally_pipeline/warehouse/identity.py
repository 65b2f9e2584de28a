"""Which warehouse this is, and whether it is still the one that last told the outside world to forget something.

A copied or restored warehouse must not go on talking to a remote queue under its old name. What can be known:

- the *place*, kept in the identity row: for SQLite path, device and inode of the file; for PostgreSQL the
  cluster's system identifier, its timeline, the database, schema and object ids. A copy, a restored dump, a
  restored base backup and a failover show here; renaming the file on its file system does not count as a move.
- the *witness*, a small file outside the database with the warehouse's id and the highest count that it was
  told. Transactions that call `Transaction.witness()` raise the count in the database; after the commit and
  before the caller goes on it is written to the file. An older state put back into the same file or the same
  tables has a lower count than its witness.

What cannot be known from inside: a snapshot of the whole machine (or of file system and witness together, with
inodes kept) that is rolled back. Whoever does that says so (`Transaction.renew_identity`).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rally_pipeline.warehouse.errors import WarehouseError
from rally_pipeline.warehouse.tables import SCHEMA_VERSION, warehouse_identity

_POSTGRESQL_PLACE = (
    "SELECT current_database(), (SELECT oid::bigint FROM pg_database WHERE datname = current_database()), "
    "current_schema(), 'warehouse_identity'::regclass::oid::bigint"
)
_CLUSTER_IS_VISIBLE = (
    "SELECT has_function_privilege('pg_control_system()', 'execute') "
    "AND has_function_privilege('pg_control_checkpoint()', 'execute')"
)
_POSTGRESQL_CLUSTER = (
    "SELECT (SELECT system_identifier::text FROM pg_control_system()), "
    "(SELECT timeline_id FROM pg_control_checkpoint())"
)


LINEAGE = "warehouse.lineage"
"""State: the identities that the warehouse had before, so that the witnesses of several machines can follow."""
EARLIER_KEPT = 100


@dataclass(frozen=True)
class Identity:
    """The warehouse's lineage: `id` is new whenever the lineage is renewed.

    `moved` says that this may be a copy or a restored older state; `reasons` say why, one line each.
    """

    id: str
    created_at: datetime
    moved: bool
    reasons: tuple[str, ...]
    witness_count: int


@dataclass(frozen=True)
class Witness:
    """The file that remembers the highest count told to it, for one warehouse id."""

    file: Path

    def read(self) -> tuple[str, int] | None:
        """The id and count last written; None if there is no file.

        Raises:
            WarehouseError: the file is there but cannot be read.
        """
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            return str(content["id"]), int(content["count"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise WarehouseError(
                f"{self.file} cannot be read: it tells whether the warehouse was restored; delete it to go on without"
            ) from None

    def raise_to(self, warehouse_id: str, count: int, *, replaces: Collection[str] = ()) -> None:
        """Write the count unless the file knows a higher one or speaks of another warehouse.

        `replaces`: what this warehouse was called before; a file of those times is taken over.
        """
        with self._locked():
            known = self.read()
            if known is None or known[0] in replaces or (known[0] == warehouse_id and known[1] < count):
                self._write(warehouse_id, count)

    def restart(self, warehouse_id: str, count: int) -> None:
        """Write the count whatever the file said before."""
        with self._locked():
            self._write(warehouse_id, count)

    def _write(self, warehouse_id: str, count: int) -> None:
        name = None
        try:
            handle, name = tempfile.mkstemp(dir=self.file.parent, prefix=f".{self.file.name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump({"id": warehouse_id, "count": count}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(self.file)
        except OSError as error:
            if name is not None:
                Path(name).unlink(missing_ok=True)
            raise WarehouseError(f"{self.file} cannot be written: {error.strerror}") from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl

        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(self.file.parent, os.O_RDONLY)
        except OSError as error:
            raise WarehouseError(f"{self.file} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            os.fsync(folder)
        finally:
            os.close(folder)


def sqlite_place(file: Path) -> dict[str, Any]:
    """What tells this file from its copies."""
    status = file.stat()
    return {"kind": "sqlite", "path": str(file), "device": status.st_dev, "inode": status.st_ino}


def postgresql_place(connection: sa.Connection) -> dict[str, Any]:
    """What tells these tables from their copies; cluster facts are absent where the server hides them."""
    database, database_oid, schema, table_oid = connection.exec_driver_sql(_POSTGRESQL_PLACE).one()
    system, timeline = None, None
    if connection.exec_driver_sql(_CLUSTER_IS_VISIBLE).scalar():
        system, timeline = connection.exec_driver_sql(_POSTGRESQL_CLUSTER).one()
    return {
        "kind": "postgresql",
        "system": system,
        "timeline": timeline,
        "database": database,
        "database_oid": database_oid,
        "schema": schema,
        "table_oid": table_oid,
    }


def read(connection: sa.Connection) -> sa.Row[*tuple[Any, ...]]:
    """The identity row."""
    return connection.execute(sa.select(warehouse_identity)).one()


def create(connection: sa.Connection, place: dict[str, Any], now: datetime) -> str:
    """Write the identity row of a new warehouse; return its id."""
    warehouse_id = str(uuid.uuid4())
    connection.execute(
        warehouse_identity.insert().values(
            only_row=1,
            id=warehouse_id,
            created_at=now,
            schema_version=SCHEMA_VERSION,
            place=place,
            witness_count=0,
        )
    )
    return warehouse_id


def renew(connection: sa.Connection, place: dict[str, Any]) -> str:
    """Begin a new lineage at this place; return its id."""
    warehouse_id = str(uuid.uuid4())
    connection.execute(warehouse_identity.update().values(id=warehouse_id, place=place, witness_count=0))
    return warehouse_id


def count_up(connection: sa.Connection) -> tuple[str, int]:
    """Raise the count that the witness will be told; return id and count."""
    connection.execute(
        warehouse_identity.update().values(witness_count=warehouse_identity.c.witness_count + 1)
    )
    row = connection.execute(sa.select(warehouse_identity.c.id, warehouse_identity.c.witness_count)).one()
    return row.id, row.witness_count


def compare(
    row: sa.Row[*tuple[Any, ...]],
    place: dict[str, Any],
    witness: tuple[str, int] | None,
    earlier: Collection[str] = (),
) -> Identity:
    """Judge the identity row against the place where it was found and the witness beside it.

    A witness of one of the `earlier` identities was written by a machine that has not been at work since.
    """
    reasons = _place_differences(row.place, place)
    if witness is not None and witness[0] in earlier:
        witness = None
    if witness is not None and witness[0] != row.id:
        reasons.append("another warehouse was kept at this place before")
    elif witness is not None and witness[1] > row.witness_count:
        reasons.append(
            f"an older state was restored: count {row.witness_count}, but {witness[1]} was witnessed"
        )
    return Identity(row.id, row.created_at, bool(reasons), tuple(reasons), row.witness_count)


def moved_message(found: Identity, why: str) -> str:
    """The line for a person whose warehouse was recognised; `why` says what cannot go on."""
    return (
        f"this warehouse may be a copy or an older state of another one ({'; '.join(found.reasons)}): {why}. Run"
        " `rally-pipeline restored`"
    )


def _place_differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    if then.get("kind") != now["kind"]:
        return ["the warehouse was moved to another kind of database"]
    if now["kind"] == "sqlite":
        if then["inode"] != now["inode"] or (then["device"] != now["device"] and then["path"] != now["path"]):
            return [f"the file {now['path']} is a copy of, or was restored in place of, {then['path']}"]
        return []
    words = {
        "system": "another PostgreSQL cluster",
        "timeline": "the cluster was restored or failed over",
        "database": "another database",
        "database_oid": "the database was created anew",
        "schema": "another schema",
        "table_oid": "the tables were created anew",
    }
    return [
        text
        for name, text in words.items()
        if None not in (then[name], now[name]) and then[name] != now[name]
    ]
