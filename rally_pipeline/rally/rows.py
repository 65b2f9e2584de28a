"""Writing the rows of one page or of some looks: only what is new is decoded, only what differs is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.records import RecordDecoder
from rally_pipeline.rally.tables import ENTITY_TABLES
from rally_pipeline.warehouse.tables import quarantine

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction

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
    ) -> Written:
        """Write the records; `guard` names the column by which an older record is refused.

        A record that cannot be stored goes to quarantine with its reason; the others go on.
        """
        written = Written()
        stored = tx.versions(self._table, ids)
        fresh = [
            place
            for place, (entity_id, version) in enumerate(zip(ids, versions, strict=True))
            if stored.get(entity_id) != version
        ]
        written.unchanged = len(ids) - len(fresh)
        if fresh:
            self._write_fresh(
                tx,
                [raws[place] for place in fresh],
                [ids[place] for place in fresh],
                [versions[place] for place in fresh],
                synced_at,
                guard,
                written,
            )
        for raw in nameless:
            held = bytes(memoryview(raw))
            key = f"hash:{blake2b(held, digest_size=16).hexdigest()}"
            tx.quarantine(self._entity.stream, key, "the record has no usable id", held)
            written.quarantined += key not in self._poison
            self._poison.add(key)
        if fresh and self._has_quarantined(tx):
            self._release(tx, [ids[place] for place in fresh if ids[place] not in written.refused])
        return written

    def _write_fresh(
        self,
        tx: Transaction,
        raws: list[msgspec.Raw],
        ids: list[str],
        versions: list[int],
        synced_at: str,
        guard: str | None,
        written: Written,
    ) -> None:
        """Decode and upsert; what cannot be stored goes to quarantine."""
        rows, places, refused = self._decoder.decode_rows(raws, versions, synced_at=synced_at)
        result = tx.upsert(self._table, self._decoder.columns, rows, guard=guard, touch=BOOKKEEPING)
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
