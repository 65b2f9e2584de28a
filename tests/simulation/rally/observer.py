"""The check of histories: what stands in the warehouse after each commit was a state that the source really had.

Reads the file with a connection of its own and decodes by rules of its own; nothing of the engine is used but the
names of columns.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from rally_pipeline.rally.entities import Entity, FieldType
from rally_pipeline.sandbox.rally.store import Store

_SHOWN = 12


@dataclass(frozen=True)
class _Seen:
    """A row as it stood after some commit: which of the source's states it can be at the earliest."""

    version: int | None
    deleted: bool
    place: int
    updated_at: str


class Observer:
    """Looks after every commit. `problems` says what was wrong; `revivals` and `regressions` count what may happen:
    rows that came back in an older state after their delete, and rows that went back within one second.
    """

    def __init__(self, file: Path, store: Store, entities: Sequence[Entity]) -> None:
        self._connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)
        self._store = store
        self._entities = entities
        self._seen: dict[Entity, dict[str, _Seen]] = {entity: {} for entity in entities}
        self._places: dict[tuple[Entity, str], int] = {}
        self._states: dict[tuple[Entity, bytes], dict[str, Any]] = {}
        self._data_version = 0
        self._marked: set[tuple[str, str]] = set()
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.trusts_answers = True
        """False while answers may lie about records (a fault gave a well-formed, wrong body)."""

    def close(self) -> None:
        self._connection.close()

    def before_commit(self, name: str) -> None:
        """Note the open marks that a page of a full pass must respect."""
        if name.endswith(".page") and name != "rally.feed.page":
            self._marked = set(self._connection.execute("SELECT entity_type, entity_id FROM rally_dirty"))

    def after_commit(self, name: str) -> None:
        """Look at the rows that changed."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._data_version:
            return
        self._data_version = version
        for entity in self._entities:
            if name.startswith((f"{entity.stream}.", "rally.feed")):
                self._look(entity, name)

    def _look(self, entity: Entity, name: str) -> None:
        seen = self._seen[entity]
        statement = f'SELECT id, _version, _deleted_at IS NOT NULL FROM "{entity.table_name}"'
        found = {
            key: (version, bool(deleted)) for key, version, deleted in self._connection.execute(statement)
        }
        for key in seen.keys() - found.keys():
            del seen[key]
        for key, (version, deleted) in found.items():
            known = seen.get(key)
            if known is None or (known.version, known.deleted) != (version, deleted):
                seen[key] = self._judge(entity, key, known, version, deleted)
                if name == f"{entity.stream}.page" and (entity.singular, key) in self._marked:
                    self._complain(f"SN1: a page wrote {entity.value} {key}, which had an open mark")

    def _judge(
        self, entity: Entity, key: str, known: _Seen | None, version: int | None, deleted: bool
    ) -> _Seen:
        """Which state of the source the row is; the earliest that fits what was seen before."""
        row = self._row(entity, key)
        updated_at = str(row["updated_at"])
        before = self._places.get((entity, key), 0)
        fitting = list(self._fitting(entity, key, row))
        if not fitting:
            if self.trusts_answers:
                self._complain(
                    f"{entity.value} {key} holds a state that never was (commit of {row['_synced_at']})"
                )
            return _Seen(version, deleted, before, updated_at)
        later = [place for place in fitting if place >= before]
        place = later[0] if later else fitting[-1]
        if not later:
            self._note_return(entity, key, known, updated_at)
        self._places[entity, key] = place
        return _Seen(version, deleted, place, updated_at)

    def _note_return(self, entity: Entity, key: str, known: _Seen | None, updated_at: str) -> None:
        """The row holds an older state than it did once."""
        if known is None or known.deleted:
            self.counts["revivals"] += 1
        elif updated_at < known.updated_at and self.trusts_answers:
            self._complain(f"{entity.value} {key} went back from {known.updated_at} to {updated_at}")
        else:
            self.counts["regressions"] += 1

    def _row(self, entity: Entity, key: str) -> dict[str, Any]:
        cursor = self._connection.execute(f'SELECT * FROM "{entity.table_name}" WHERE id = ?', (key,))
        names = [column[0] for column in cursor.description]
        return dict(zip(names, cursor.fetchone(), strict=True))

    def _fitting(self, entity: Entity, key: str, row: dict[str, Any]) -> Iterator[int]:
        assert self._store.history is not None
        comparable = _comparable(entity, row)
        for place, state in enumerate(self._store.history.get((entity.value, key), ())):
            if state.body is None:
                continue
            cached = (entity, state.body)
            if cached not in self._states:
                self._states[cached] = _expected(entity, state.body)
            if self._states[cached] == comparable:
                yield place

    def _complain(self, problem: str) -> None:
        if len(self.problems) < _SHOWN:
            self.problems.append(problem)


def _expected(entity: Entity, body: bytes) -> dict[str, Any]:
    """What a row holds of a record."""
    record = json.loads(body, parse_float=Decimal)
    row: dict[str, Any] = {}
    for field in entity.fields:
        said = record.pop(field.name, None)
        if said is not None and field.type is FieldType.INSTANT:
            said = _instant(said)
        elif said is not None and field.type is FieldType.DECIMAL:
            said = Decimal(str(said))
        row[field.column] = said
    row["extra"] = {name: value for name, value in record.items() if value is not None}
    return row


def _comparable(entity: Entity, row: dict[str, Any]) -> dict[str, Any]:
    """A stored row in the values of `_expected`."""
    found: dict[str, Any] = {}
    for field in entity.fields:
        held = row[field.column]
        if held is not None and field.type is FieldType.INSTANT:
            held = _instant(held)
        elif held is not None and field.type is FieldType.DECIMAL:
            held = Decimal(held)
        elif held is not None and field.type is FieldType.JSON:
            held = json.loads(held, parse_float=Decimal)
        found[field.column] = held
    extra = json.loads(row["extra"], parse_float=Decimal) if row["extra"] else {}
    found["extra"] = {name: value for name, value in extra.items() if value is not None}
    return found


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
