"""Whether a stored row has the values that a record gives, whatever its `_version` says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from rally_pipeline.rally.records import RecordDecoder, Row, version_of
from rally_pipeline.rally.rows import BOOKKEEPING
from rally_pipeline.rally.tables import ENTITY_TABLES
from rally_pipeline.warehouse.types import Json

if TYPE_CHECKING:
    from rally_pipeline.rally.entities import Entity
    from rally_pipeline.warehouse import Transaction

# Neither rounds, nor has a limit of digits.
_read_exactly = partial(json.loads, parse_float=Decimal, parse_int=Decimal)


class RowValues:
    """Reads and compares the columns of one entity's table that a record fills, and the deletion mark."""

    def __init__(self, entity: Entity) -> None:
        self._decoder = RecordDecoder(entity)
        self._table = ENTITY_TABLES[entity]
        self.columns = tuple(name for name in self._decoder.columns if name not in BOOKKEEPING)
        self._pick: Callable[[Row], Row] = itemgetter(
            *(self._decoder.columns.index(name) for name in self.columns)
        )
        self._json = [
            place
            for place, name in enumerate(self.columns)
            if isinstance(self._table.columns[name].type, Json)
        ]
        self._updated_at = self.columns.index("updated_at")
        self._deleted_at = self.columns.index("_deleted_at")

    def stored(self, tx: Transaction, ids: Sequence[str]) -> dict[str, Row]:
        """The rows of `ids` that are there and not marked deleted."""
        found = tx.fetch(self._table, self.columns, ids)
        return {str(key): row for key, row in found.items() if row[self._deleted_at] is None}

    def of_records(self, raws: Sequence[msgspec.Raw], versions: Sequence[int]) -> list[Row | None]:
        """What each record would be as a row; None where it cannot be stored."""
        decoded = self._decoder.decode_rows(raws, versions, synced_at="")
        rows: list[Row | None] = [None] * len(raws)
        for place, row in zip(decoded.places, decoded.rows, strict=True):
            rows[place] = self._pick(row)
        return rows

    def of_record(self, raw: bytes) -> Row | None:
        """The same for a single record."""
        return self.of_records([msgspec.Raw(raw)], [version_of(raw)])[0]

    def updated_at(self, row: Row | None) -> str | None:
        """Canonical text of `updatedAt`, which sorts."""
        found = row[self._updated_at] if row is not None else None
        return found if isinstance(found, str) else None

    def equal(self, row: Row | None, stored: Row) -> bool:
        """Whether every value is the same; JSON by what it means, since databases spell its numbers differently."""
        if row is None:
            return False
        if row == stored:
            return True
        unlike = [place for place, value in enumerate(row) if value != stored[place]]
        return all(place in self._json and _mean_the_same(row[place], stored[place]) for place in unlike)


def fingerprint(row: Row | None) -> int | None:
    """A number that tells the row's content apart from another's, within this process."""
    return None if row is None else hash(row)


def _mean_the_same(left: str | None, right: str | None) -> bool:
    return left is not None and right is not None and _same(_read_exactly(left), _read_exactly(right))


def _same(left: Any, right: Any) -> bool:
    """Equal as JSON: `true` is not 1."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)
