"""A private database on disk for what must be looked up while a file is read, so that memory does not grow
with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.keys import fold


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """A record that exists in Rally, as far as a name or e-mail address finds it."""

    id: str
    text: str
    """The value that was looked up, in Rally's own spelling."""
    detail: str | None
    """For deals the id of the pipeline."""


class Scratch:
    """Keys met in the file, and records known in Rally. SQLite removes the file itself when it is closed."""

    def __init__(self) -> None:
        # An empty name is a temporary database on disk of which only the page cache is in memory.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            CREATE TABLE met (key BLOB PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE known (entity TEXT, id TEXT, field TEXT, key TEXT NOT NULL, text TEXT NOT NULL,
            detail TEXT,
                                PRIMARY KEY (entity, id, field)) WITHOUT ROWID;
            CREATE INDEX known_key ON known (entity, field, key);
            BEGIN;
            """
        )
        self._covered: set[Entity] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def meet(self, key: bytes, row: int) -> int | None:
        """Remember the row under its key; returns the earlier row that has it already."""
        added = self._database.execute("INSERT OR IGNORE INTO met VALUES (?, ?)", (key, row)).rowcount
        if added:
            return None
        found: int = self._database.execute("SELECT row FROM met WHERE key = ?", (key,)).fetchone()[0]
        return found

    def learn(self, entity: Entity, records: Iterable[tuple[str, str, str | None, str | None]]) -> None:
        """Take in records as (id, field, value, detail); a value that is None forgets what was known."""
        for record_id, field, text, detail in records:
            if text is None or not text.strip():
                self._database.execute(
                    "DELETE FROM known WHERE entity = ? AND id = ? AND field = ?",
                    (entity.value, record_id, field),
                )
            else:
                self._database.execute(
                    "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?)",
                    (entity.value, record_id, field, fold(text), text, detail),
                )

    def cover(self, entity: Entity) -> None:
        """Say that every record of the entity has been learnt: from now on an unknown name is unknown in
        Rally."""
        self._covered.add(entity)

    def covers(self, entity: Entity) -> bool:
        """Whether `find` can be believed when it finds nothing."""
        return entity in self._covered

    def find(self, entity: Entity, field: str, text: str, *, most: int = 100) -> list[KnownRecord]:
        """The records whose `field` equals `text`, at most `most` of them."""
        rows = self._database.execute(
            "SELECT id, text, detail FROM known"
            " WHERE entity = ? AND field = ? AND key = ? ORDER BY id LIMIT ?",
            (entity.value, field, fold(text), most),
        )
        return [KnownRecord(*row) for row in rows]
