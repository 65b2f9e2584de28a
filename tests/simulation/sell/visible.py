"""What anybody could have seen in the warehouse: every value a real state, none older than one seen before."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from rally_pipeline.sandbox.sell.world import Reference, Thing
from rally_pipeline.sandbox.sell.world import World as Account
from rally_pipeline.sell.entities import Entity, FieldType
from rally_pipeline.sell.tables import ENTITY_TABLES, failed_objects, suspects
from rally_pipeline.warehouse.tables import quarantine
from rally_pipeline.warehouse.values import decimal_text, instant_text

Row = tuple[Any, ...]
_NEVER = -1
_FIELDS = {entity: [field for field in entity.fields if field.name != "stages"] for entity in Entity}
_QUERIES = {
    entity: "SELECT CAST(id AS TEXT), _deleted_at, {} FROM {}".format(
        ", ".join(f'"{field.name}"' for field in _FIELDS[entity]), ENTITY_TABLES[entity].name
    )
    for entity in Entity
}


class VisibleStates:
    """Looks at the file itself, with nothing of the code under test, whenever something was committed."""

    def __init__(self, file: Path, account: Account) -> None:
        self._file = file
        self._account = account
        self._connection: sqlite3.Connection | None = None
        self._seen: dict[Entity, dict[str, Row]] = {entity: {} for entity in Entity}
        self._stored: dict[Reference, int] = {}
        """Number of the version that each live row shows."""
        self._newest: dict[Reference, int] = {}
        """Number of the newest version that was ever visible; a delete is a version as well."""
        self._expected: dict[tuple[Reference, int], Mapping[str, Any]] = {}
        self.problems: list[str] = []

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def forget(self) -> None:
        """An older state of the warehouse was put back: from here on everything is new."""
        self._seen = {entity: {} for entity in Entity}
        self._stored.clear()
        self._newest.clear()

    def look(self) -> None:
        """Compare all rows that changed since the last look with the states that the account ever had."""
        if self._connection is None:
            self._connection = sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)
        for entity in Entity:
            rows = {row[0]: row for row in self._connection.execute(_QUERIES[entity])}
            before = self._seen[entity]
            if rows != before:
                for key in before.keys() - rows.keys():
                    self._note_absent((entity.singular, key))
                for key, row in rows.items():
                    if before.get(key) != row:
                        self._note_row(entity, key, row)
                self._seen[entity] = rows

    def check_complete(self, through: datetime) -> None:
        """A drain said that everything up to `through` is here: then it is, or it is marked as open.

        Deletes are left to the end: the server announces none while the object's acknowledgement is on its way.
        """
        self.look()
        assert self._connection is not None
        open_marks = {
            (kind, key)
            for table in (suspects, failed_objects)
            for kind, key in self._connection.execute(f"SELECT type, id FROM {table.name}")
        }
        held = {key for (key,) in self._connection.execute(f"SELECT key FROM {quarantine.name}")}
        for thing in self._account.things.values():
            if Entity.of_singular(thing.kind) is None or thing.reference in open_marks or thing.id in held:
                continue
            then = next((v for v in reversed(thing.versions) if v.at <= through), None)
            if then is None or then.data is None:
                continue
            shown = self._stored.get(thing.reference, _NEVER)
            if _NEVER < shown < then.number:
                shown = self._newest_shown(thing)
            if shown == _NEVER:
                if all(version.data for version in thing.versions if version.number >= then.number):
                    self._complain(thing.reference, f"is missing, but synced through {through}")
            elif shown < then.number:
                self._complain(
                    thing.reference, f"shows {shown} and not {then.number}, but synced through {through}"
                )

    def _note_absent(self, reference: Reference) -> None:
        self._stored.pop(reference, None)
        thing = self._account.things.get(reference)
        if thing is not None and not thing.is_live:
            self._newest[reference] = thing.current.number

    def _note_row(self, entity: Entity, key: str, row: Row) -> None:
        reference = (entity.singular, key)
        thing = self._account.things.get(reference)
        number = _NEVER if thing is None else self._version_of(entity, thing, row)
        if number == _NEVER:
            self._complain(reference, "holds a state that never was")
        elif row[1] is not None:
            self._note_absent(reference)
        else:
            if number < self._newest.get(reference, _NEVER):
                self._complain(reference, f"went back from {self._newest[reference]} to {number}")
            self._newest[reference] = self._stored[reference] = number

    def _newest_shown(self, thing: Thing) -> int:
        """An object may have come back to an earlier state since: then its row did not change."""
        entity = Entity.of_singular(thing.kind)
        assert entity is not None
        return self._version_of(entity, thing, self._seen[entity][thing.id])

    def _version_of(self, entity: Entity, thing: Thing, row: Row) -> int:
        """Number of the newest version with just these values."""
        values = dict(zip((field.name for field in _FIELDS[entity]), row[2:], strict=True))
        for version in reversed(thing.versions):
            if version.data is not None:
                expected = self._expected_of(entity, thing.reference, version.number, version.data)
                if all(values[name] == value for name, value in expected.items()):
                    return version.number
        return _NEVER

    def _expected_of(
        self, entity: Entity, reference: Reference, number: int, data: bytes
    ) -> Mapping[str, Any]:
        known = self._expected.get((reference, number))
        if known is None:
            record = msgspec.json.decode(data)
            known = {
                field.name: _stored_form(field.type, record[field.name])
                for field in _FIELDS[entity]
                if field.name in record and field.name != "id"
            }
            self._expected[reference, number] = known
        return known

    def _complain(self, reference: Reference, text: str) -> None:
        self.problems.append(f"{' '.join(reference)} {text}")


def _stored_form(kind: FieldType, value: Any) -> Any:
    """The value as SQLite holds it, worked out without the code under test."""
    if value is None:
        return None
    match kind:
        case FieldType.INSTANT:
            return instant_text(value)
        case FieldType.DECIMAL:
            return decimal_text(Decimal(str(value)))
        case FieldType.BOOLEAN:
            return int(value)
        case FieldType.JSON:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        case _:
            return value
