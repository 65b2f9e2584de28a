"""Tables of the Sell mirror: one a type, the landed queue, and the bookkeeping of what is not settled yet."""

from __future__ import annotations

from sqlalchemy import Column, Index, MetaData, Table

from rally_pipeline.sell.entities import Entity, FieldType
from rally_pipeline.warehouse.types import BigInteger, Boolean, ExactDecimal, Instant, Integer, Json, Text

metadata = MetaData()

_COLUMN_TYPES = {
    FieldType.TEXT: Text,
    FieldType.IDENTIFIER: Text,
    FieldType.INTEGER: BigInteger,
    FieldType.DECIMAL: ExactDecimal,
    FieldType.BOOLEAN: Boolean,
    FieldType.INSTANT: Instant,
    FieldType.JSON: Json,
}


def _entity_table(entity: Entity) -> Table:
    first, *others = entity.fields
    return Table(
        entity.table_name,
        metadata,
        Column(first.name, _COLUMN_TYPES[first.type](), primary_key=True, autoincrement=False),
        *(Column(field.name, _COLUMN_TYPES[field.type]()) for field in others),
        Column("extra", Json(), comment="fields without a column, and values that do not fit their column"),
        Column("revision", BigInteger(), comment="data revision of the queue; null: seen by REST only"),
        Column("_synced_at", Instant(), comment="server time at which this content was received"),
        Column("_deleted_at", Instant(), comment="set by DELETE_MODE=soft"),
    )


ENTITY_TABLES: dict[Entity, Table] = {entity: _entity_table(entity) for entity in Entity}

queue_items = Table(
    "sell_queue_items",
    metadata,
    Column("type", Text(), primary_key=True),
    Column("id", Text(), primary_key=True, comment="empty for an item that names no object"),
    Column("ack_key", Text(), primary_key=True, comment="opaque; returned byte for byte"),
    Column("event_type", Text(), nullable=False),
    Column("revision", BigInteger(), comment="0 for deletes"),
    Column("lineage", BigInteger(), nullable=False, comment="raised by every new device UUID"),
    Column("payload", Text(), comment="the item's data, for as long as no table holds what it says"),
    Column("page", BigInteger(), nullable=False, comment="number of the page that brought it first"),
    Column("seen_at", Instant(), nullable=False),
    Column("acked_at", Instant(), comment="when the server confirmed the acknowledgement"),
)
Index("sell_queue_items_page", queue_items.c.page)
Index("sell_queue_items_acked_at", queue_items.c.acked_at)

pending_acks = Table(
    "sell_pending_acks",
    metadata,
    Column("page", BigInteger(), primary_key=True, autoincrement=False),
    Column("lineage", BigInteger(), nullable=False),
    Column("ack_keys", Json(), nullable=False, comment="keys of one committed page"),
    Column("committed_at", Instant(), nullable=False),
)


def _open_objects(name: str, *columns: Column[object]) -> Table:
    return Table(
        name,
        metadata,
        Column("id", Text(), primary_key=True),
        Column("type", Text(), primary_key=True),
        Column("mark", BigInteger(), nullable=False, comment="page of the newest hint"),
        Column("reason", Text(), nullable=False),
        Column("first_seen", Instant(), nullable=False),
        Column("last_seen", Instant(), nullable=False, comment="server time of the newest hint"),
        Column("attempts", Integer(), nullable=False, comment="looks taken without a decision"),
        Column(
            "absences",
            Integer(),
            nullable=False,
            comment="runs in a row whose look did not find it",
        ),
        Column("last_error", Text()),
        *columns,
    )


suspects = _open_objects("sell_suspects")
failed_objects = _open_objects("sell_failed_objects")
for _open in (suspects, failed_objects):
    Index(f"{_open.name}_due", _open.c.type, _open.c.last_seen, _open.c.id)

tombstones = Table(
    "sell_tombstones",
    metadata,
    Column("id", Text(), primary_key=True),
    Column("type", Text(), primary_key=True),
    Column("revision", BigInteger(), comment="last real revision seen before the delete"),
    Column("deleted_at", Instant(), nullable=False, comment="server time of the delete's announcement"),
)
