"""What Rally has already, for checking links and duplicates before anything is sent: the mirror, and what
changed since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FeedState
from rally_pipeline.rally.files.keys import fold
from rally_pipeline.rally.files.newcomers import read_records
from rally_pipeline.rally.files.scratch import Scratch
from rally_pipeline.rally.tables import ENTITY_TABLES

if TYPE_CHECKING:
    from rally_pipeline.rally.client import RallyClient
    from rally_pipeline.rally.files.headers import Layout
    from rally_pipeline.rally.files.templates import Template
    from rally_pipeline.warehouse import Transaction, Warehouse

_BATCH = 5_000
_LOOKED_UP = 300
_FIELDS = {
    Entity.CONTACTS: ("email",),
    Entity.COMPANIES: ("name", "domain"),
    Entity.DEALS: ("name",),
}


class _Names(msgspec.Struct):
    id: str
    email: str | None = None
    name: str | None = None
    domain: str | None = None
    pipelineId: str | None = None  # noqa: N815 (name of the API)


_read_names = msgspec.json.Decoder(_Names).decode
_Learnt = Iterator[tuple[str, str, str | None, str | None]]


def needed_entities(layout: Layout, *, links: bool) -> set[Entity]:
    """The entities whose records must be known to check a file: its own where Rally does not say that it
    notices duplicates, and with `links` those that it links to."""
    columns = zip(layout.template.columns, layout.positions, strict=True)
    linked = {column.link for column, position in columns if column.link is not None and position is not None}
    own = {layout.template.entity} & {Entity.COMPANIES, Entity.DEALS}
    return own | linked if links else own


def learn_known_records(
    scratch: Scratch,
    warehouse: Warehouse,
    client: RallyClient,
    entities: Iterable[Entity],
    overlap: timedelta,
) -> list[Entity]:
    """Fill `scratch` from the mirror and from the records that changed since the mirror was complete.

    Returns the entities that could not be covered because no full extract of them has ended yet.
    """
    uncovered = []
    for entity in sorted(entities):
        with warehouse.reading() as tx:
            complete_to = _complete_to(tx, entity)
            if complete_to is None:
                uncovered.append(entity)
                continue
            for batch in _mirror_rows(tx, entity):
                scratch.learn(entity, batch)
        scratch.learn(entity, _changed_rows(client, entity, complete_to - overlap))
        scratch.cover(entity)
    return uncovered


def count_records(warehouse: Warehouse, entity: Entity) -> int | None:
    """Records of the entity in the mirror; None if no full extract of it has ended yet."""
    with warehouse.reading() as tx:
        if _complete_to(tx, entity) is None:
            return None
        return tx.count(ENTITY_TABLES[entity])


def _complete_to(tx: Transaction, entity: Entity) -> datetime | None:
    """Up to when the mirror of the entity has every record that exists; None if it never was complete."""
    last_pass = (tx.state(entity.stream) or {}).get("last_pass")
    if not last_pass:
        return None
    started = datetime.fromisoformat(last_pass["started"])
    cursor = FeedState.load(tx).cursor
    return max(started, datetime.fromisoformat(cursor)) if cursor else started


def _mirror_rows(tx: Transaction, entity: Entity) -> Iterator[_Learnt]:
    table = ENTITY_TABLES[entity]
    columns = [table.c[name] for name in _FIELDS[entity]]
    detail = [table.c.pipeline_id] if entity is Entity.DEALS else []
    query = select(table.c.id, *columns, *detail).where(table.c["_deleted_at"].is_(None)).order_by(table.c.id)
    after = ""
    while rows := tx.rows(query.where(table.c.id > after).limit(_BATCH)):
        yield (
            (row[0], name, row[1 + place], row[-1] if detail else None)
            for row in rows
            for place, name in enumerate(_FIELDS[entity])
        )
        after = rows[-1][0]


def _changed_rows(client: RallyClient, entity: Entity, since: datetime) -> _Learnt:
    for raw in read_records(client, entity, since):
        try:
            names = _read_names(raw)
        except (msgspec.MsgspecError, RecursionError):
            continue  # a record whose name is no text can be neither linked nor doubled by a file
        for field in _FIELDS[entity]:
            yield names.id, field, getattr(names, field), names.pipelineId


def find_existing(warehouse: Warehouse, template: Template, rows: Sequence[Sequence[str]]) -> list[bool]:
    """For each row whether the mirror has a contact with its e-mail address; never for the other entities."""
    place = template.position("email")
    if template.entity is not Entity.CONTACTS or place is None or not rows:
        return [False] * len(rows)
    email = ENTITY_TABLES[Entity.CONTACTS].c.email
    found: set[str] = set()
    with warehouse.reading() as tx:
        if _complete_to(tx, Entity.CONTACTS) is None:
            return [False] * len(rows)
        for start in range(0, len(rows), _LOOKED_UP):
            addresses = {cells[place] for cells in rows[start : start + _LOOKED_UP]}
            spellings = addresses | {fold(address) for address in addresses}
            found.update(fold(row[0]) for row in tx.rows(select(email).where(email.in_(spellings))))
    return [fold(cells[place]) in found for cells in rows]
