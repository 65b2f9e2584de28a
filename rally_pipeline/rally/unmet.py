"""Which stored rows a finished pass did not meet. They become marks: absence is a hint, never a delete."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.marks import REASON_ABSENT, Hint, add_marks
from rally_pipeline.rally.records import key_of
from rally_pipeline.rally.tables import ENTITY_TABLES, extract_pages

if TYPE_CHECKING:
    import numpy

    from rally_pipeline.warehouse import Transaction

_CHUNK = 20_000


def mark_unmet(tx: Transaction, entity: Entity, generation: int, *, seen: datetime) -> int:
    """Mark every stored row that no page of the pass showed; returns how many.

    Memory: 16 bytes for each row that the pass met.
    """
    statement = select(extract_pages.c.row_keys).where(
        extract_pages.c.entity_type == entity.singular, extract_pages.c.generation == generation
    )
    met = MetKeys(row[0] for row in tx.rows(statement))
    unmet = 0
    for ids in stored_ids(tx, entity):
        hints = [Hint(entity_id, REASON_ABSENT) for entity_id in met.missing(ids)]
        unmet += add_marks(tx, entity, hints, seen=seen)
    return unmet


def stored_ids(tx: Transaction, entity: Entity) -> Iterator[list[str]]:
    """Ids of the rows that count as present, in chunks, ascending."""
    table = ENTITY_TABLES[entity]
    statement = select(table.c.id).where(table.c["_deleted_at"].is_(None)).order_by(table.c.id).limit(_CHUNK)
    last: str | None = None
    while True:
        chunk = statement if last is None else statement.where(table.c.id > last)
        ids = [row[0] for row in tx.rows(chunk)]
        if ids:
            yield ids
        if len(ids) < _CHUNK:
            return
        last = ids[-1]


class MetKeys:
    """The keys that a pass met, as one sorted array."""

    def __init__(self, packed: Iterator[bytes]) -> None:
        import numpy as np

        data = bytearray()
        for keys in packed:
            data += keys
        # Two 64-bit halves compare faster than byte strings, and no trailing zero is lost.
        halves = np.frombuffer(bytes(data), dtype=np.dtype([("high", ">u8"), ("low", ">u8")]))
        order = np.lexsort((halves["low"], halves["high"]))
        self._high = halves["high"][order].astype(np.uint64)
        self._low = halves["low"][order].astype(np.uint64)

    def missing(self, ids: list[str]) -> list[str]:
        """Those of `ids` that the pass did not meet."""
        import numpy as np

        if not len(self._high):
            return ids
        keys = np.frombuffer(b"".join(map(key_of, ids)), dtype=np.dtype([("high", ">u8"), ("low", ">u8")]))
        return [ids[place] for place in np.nonzero(~self._contains(keys))[0]]

    def _contains(self, keys: numpy.ndarray) -> numpy.ndarray:
        import numpy as np

        high, low = keys["high"].astype(np.uint64), keys["low"].astype(np.uint64)
        first = np.searchsorted(self._high, high, side="left")
        after = np.searchsorted(self._high, high, side="right")
        found = np.zeros(len(high), dtype=bool)
        # Equal high halves are a handful at most; step through them together.
        place = first.copy()
        open_places = place < after
        while open_places.any():
            found[open_places] |= self._low[place[open_places]] == low[open_places]
            place[open_places] += 1
            open_places = (place < after) & ~found
        return found
