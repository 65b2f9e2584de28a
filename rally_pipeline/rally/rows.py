"""Writing the rows of one page or of some looks: only what is new is decoded, only what differs is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.records import DecodedRows, RecordDecoder
from rally_pipeline.rally.tables import ENTITY_TABLES
from rally_pipeline.warehouse.tables import quarantine

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction

_MOSTLY = 0.9
BOOKKEEPING = ("_version", "_synced_at")
"""Columns whose change alone causes no write."""


@dataclass(slots=True)
class Written:
    """What happened to the rows."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    quarantined: int = 0
    older: list[str] = field(default_factory=list)
    """Ids whose row was older than the stored one and different; not written."""
    refused: set[str] = field(default_factory=set)
    """Ids whose row went to quarantine."""


class PageWriter:
    """Writes raw records of one entity inside the caller's transaction."""

    def __init__(self, entity: Entity, decoder: RecordDecoder) -> None:
        self._entity = entity
        self._decoder = decoder
        self._table = ENTITY_TABLES[entity]
        self._poison: set[str] = set()
        self._only_new = False

    @property
    def only_new(self) -> bool:
        """Whether the rows of the latest write were all new, as in a first load: then the next ones mostly are, too."""
        return self._only_new

    def write(
        self,
        tx: Transaction,
        raws: Sequence[msgspec.Raw],
        ids: Sequence[str],
        versions: Sequence[int],
        *,
        synced_at: str,
        guard: str | None,
        nameless: Sequence[msgspec.Raw] = (),
        decoded: DecodedRows | None = None,
        by_value: bool = False,
    ) -> Written:
        """Write the records; `guard` names the column by which an older record is refused.

        `decoded`: all of `raws` as rows, where the caller has them already. `by_value`: compare every column value
        with the stored row, although its `_version` says that it is equal: somebody may have changed a cell.

        A record that cannot be stored goes to quarantine with its reason; the others go on.
        """
        written, total, met = Written(), len(ids), ids
        fresh = range(len(ids)) if by_value else self._find_fresh(tx, ids, versions)
        written.unchanged = total - len(fresh)
        if fresh:
            if len(fresh) < total:
                raws = [raws[place] for place in fresh]
                ids = [ids[place] for place in fresh]
                versions = [versions[place] for place in fresh]
                decoded = None
            if decoded is None:
                decoded = self._decoder.decode_rows(raws, versions, synced_at=synced_at)
            self._write_fresh(tx, raws, ids, decoded, guard, written)
        for raw in nameless:
            held = bytes(memoryview(raw))
            key = f"hash:{blake2b(held, digest_size=16).hexdigest()}"
            tx.quarantine(self._entity.stream, key, "the record has no usable id", held)
            written.quarantined += key not in self._poison
            self._poison.add(key)
        # Also a record that is unchanged now may have been garbled in an answer before.
        if met and self._has_quarantined(tx):
            self._release(tx, [entity_id for entity_id in met if entity_id not in written.refused])
        # Rows that looks wrote meanwhile are few.
        self._only_new = written.inserted > _MOSTLY * total
        return written

    def _find_fresh(self, tx: Transaction, ids: Sequence[str], versions: Sequence[int]) -> Sequence[int]:
        """Places of the rows whose version is not the stored one; the upsert compares contents once more."""
        if self._only_new:
            return range(len(ids))
        stored = tx.versions(self._table, ids)
        return [
            place
            for place, (entity_id, version) in enumerate(zip(ids, versions, strict=True))
            if stored.get(entity_id) != version
        ]

    def _write_fresh(
        self,
        tx: Transaction,
        raws: Sequence[msgspec.Raw],
        ids: Sequence[str],
        decoded: DecodedRows,
        guard: str | None,
        written: Written,
    ) -> None:
        """Upsert; what cannot be stored goes to quarantine."""
        rows, places, refused = decoded
        result = tx.upsert(
            self._table, self._decoder.columns, rows, guard=guard, touch=BOOKKEEPING, clean=True
        )
        written.inserted = result.inserted
        written.updated = result.updated
        written.unchanged += result.unchanged
        written.older = [str(key) for key in result.older]
        poison = dict(refused)
        if result.rejected:
            place_of = {row[0]: place for row, place in zip(rows, places, strict=True)}
            poison.update((place_of[row[0]], reason) for row, reason in result.rejected)
        for place, reason in poison.items():
            tx.quarantine(self._entity.stream, ids[place], reason, bytes(memoryview(raws[place])))
        refused_ids = {ids[place] for place in poison}
        # Pages overlap: a record that is refused twice in one run is counted once.
        written.quarantined += len(refused_ids - self._poison)
        self._poison |= refused_ids
        written.refused = refused_ids

    def _has_quarantined(self, tx: Transaction) -> bool:
        statement = select(quarantine.c.key).where(quarantine.c.source == self._entity.stream).limit(1)
        return bool(tx.rows(statement))

    def _release(self, tx: Transaction, ids: list[str]) -> None:
        """What is stored now needs no quarantine any more."""
        held = select(quarantine.c.key).where(
            quarantine.c.source == self._entity.stream, quarantine.c.key.in_(ids)
        )
        candidates = {row[0] for row in tx.rows(held)}
        if not candidates:
            return
        stored = tx.versions(self._table, sorted(candidates))
        for entity_id in candidates & stored.keys():
            tx.release(self._entity.stream, entity_id)
