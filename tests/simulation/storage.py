"""SQLite as simulations want it: nothing waits for a disk, and statements are compiled once a process.

What a commit means to a process that dies in simulation is unchanged; only power loss is not survived, which no
simulation plays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from uuid import UUID

import sqlalchemy as sa

from rally_pipeline.sell import device
from rally_pipeline.warehouse import sqlite
from tests.simulation.script import patched

_create_engine = sqlite.create_engine
_first: list[sa.Engine] = []
"""The first engine of this process: later ones share its dialect, and with it its compiled statements."""


@contextmanager
def quick_storage(seed: int) -> Iterator[None]:
    """While entered, warehouses do not sync to the disk, and new device UUIDs follow from the seed."""
    dice = Random(seed)
    with ExitStack() as stack:
        stack.enter_context(patched(sqlite, create_engine=_create_quick_engine))
        stack.enter_context(patched(device, uuid4=lambda: UUID(int=dice.getrandbits(128), version=4)))
        yield


def _create_quick_engine(file: Path, lock_wait_seconds: float) -> sa.Engine:
    engine = _create_engine(file, lock_wait_seconds)
    sa.event.listen(engine, "connect", _stop_syncing)
    if not _first:
        _first.append(engine)
    elif engine.dialect is not _first[0].dialect:
        engine.dialect = engine.pool._dialect = _first[0].dialect
        engine._compiled_cache = _first[0]._compiled_cache
    return engine


def _stop_syncing(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA secure_delete=OFF")


def dump(file: Path, tables: Iterable[sa.Table], *, leaving_out: Iterable[str] = ()) -> Iterator[str]:
    """Every row of the tables as a line of text, sorted, without the columns named."""
    left_out = set(leaving_out)
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        for table in tables:
            names = ", ".join(f'"{column.name}"' for column in table.columns if column.name not in left_out)
            rows = connection.execute(f'SELECT {names} FROM "{table.name}"')
            yield from sorted(f"{table.name} {row!r}" for row in rows)
