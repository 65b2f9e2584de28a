"""Which stored rows a finished pass did not meet. They become marks: absence is a hint, never a delete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.marks import REASON_ABSENT, Hint, add_marks
from rally_pipeline.rally.records import KEY_BYTES, packed_keys_of
from rally_pipeline.rally.tables import ENTITY_TABLES, extract_pages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rally_pipeline.warehouse import Transaction

_PAGES_AT_ONCE = 16
_MIX = 0x9E3779B97F4A7C15
"""An odd number (2^64 divided by the golden ratio), so that multiplying loses nothing."""


def mark_unmet(tx: Transaction, entity: Entity, generation: int, *, seen: datetime) -> int:
    """Mark every stored row that no page of the pass showed; returns how many.

    Memory: 8 bytes for each row that the pass met.
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
    """The keys that a pass met, as one sorted array of 64-bit fingerprints.

    Any two of a million keys share a fingerprint with a chance of 3 in 100 million. An absent row would then stay
    until the row that hides it is gone, too.
    """

    def __init__(self, packed: Iterable[bytes]) -> None:
        import numpy as np

        prints = [_fingerprints(keys) for keys in packed]
        self._met = np.concatenate(prints) if prints else np.empty(0, dtype=np.uint64)
        self._met.sort()

    @property
    def count(self) -> int:
        """Different keys."""
        import numpy as np

        return int(np.count_nonzero(self._met[1:] != self._met[:-1])) + bool(len(self._met))

    def missing(self, ids: list[str]) -> list[str]:
        """Those of `ids` that the pass did not meet."""
        import numpy as np

        if not len(self._met):
            return ids
        wanted = _fingerprints(packed_keys_of(ids))
        places = np.minimum(np.searchsorted(self._met, wanted), len(self._met) - 1)
        return [ids[place] for place in np.nonzero(self._met[places] != wanted)[0]]


def _fingerprints(packed: bytes) -> NDArray[np.uint64]:
    """64 bits of each packed key, in which every bit of the key has a part."""
    import numpy as np

    halves = np.frombuffer(packed, dtype=np.uint64).reshape(-1, KEY_BYTES // 8)
    mixed: NDArray[np.uint64] = halves[:, 0] * np.uint64(_MIX) ^ halves[:, 1]
    return mixed
