"""Which stored rows a finished pass did not meet. They become marks: absence is a hint, never a delete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.marks import REASON_ABSENT, Hint, add_marks
from rally_pipeline.rally.passes import KEY_BYTES
from rally_pipeline.rally.records import key_of
from rally_pipeline.rally.tables import ENTITY_TABLES, extract_pages

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction

_PAGES_AT_ONCE = 16


def mark_unmet(tx: Transaction, entity: Entity, generation: int, *, seen: datetime) -> int:
    """Mark every stored row that no page of the pass showed; returns how many.

    Memory: 16 bytes for each row that the pass met.
    """
    met = MetKeys(_packed_keys(tx, entity, generation))
    unmet = 0
    for ids in tx.live_keys(ENTITY_TABLES[entity]):
        hints = [Hint(entity_id, REASON_ABSENT) for entity_id in met.missing(ids)]
        unmet += add_marks(tx, entity, hints, seen=seen)
    return unmet


def _packed_keys(tx: Transaction, entity: Entity, generation: int) -> Iterator[bytes]:
    """What each page of the pass met, a few pages at a time."""
    of_pass = (extract_pages.c.entity_type == entity.singular) & (extract_pages.c.generation == generation)
    statement = (
        select(extract_pages.c.page, extract_pages.c.row_keys).where(of_pass).order_by(extract_pages.c.page)
    )
    after = -1
    while rows := tx.rows(statement.where(extract_pages.c.page > after).limit(_PAGES_AT_ONCE)):
        yield from (keys for _, keys in rows)
        after = rows[-1][0]


class MetKeys:
    """The keys that a pass met, as one sorted array of fixed-width strings."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        import numpy as np

        data = bytearray()
        for keys in packed:
            data += keys
        # A view on the same bytes, sorted in place: no second copy of millions of keys.
        self._keys = np.frombuffer(data, dtype=f"S{KEY_BYTES}")
        self._keys.sort()

    def missing(self, ids: list[str]) -> list[str]:
        """Those of `ids` that the pass did not meet."""
        import numpy as np

        if not len(self._keys):
            return ids
        wanted = np.frombuffer(b"".join(map(key_of, ids)), dtype=f"S{KEY_BYTES}")
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return [ids[place] for place in np.nonzero(self._keys[places] != wanted)[0]]
