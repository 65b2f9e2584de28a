"""Tables of the Rally mirror: the four entities, the feed's log, open marks, and the pass in progress."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, LargeBinary, MetaData, Table
from sqlalchemy.types import TypeEngine

from rally_pipeline.rally.entities import Entity, Field, FieldType
from rally_pipeline.warehouse.types import BigInteger, ExactDecimal, Instant, Integer, Json, Text

metadata = MetaData()

_COLUMN_TYPES = {
    FieldType.TEXT: Text,
    FieldType.INTEGER: BigInteger,
    FieldType.DECIMAL: ExactDecimal,
    FieldType.INSTANT: Instant,
    FieldType.JSON: Json,
}


def _column_type(field: Field) -> TypeEngine[Any]:
    return Text(collated=True) if field.name == "id" else _COLUMN_TYPES[field.type]()


def _entity_table(entity: Entity) -> Table:
    columns = [
        Column(field.column, _column_type(field), primary_key=field.name == "id", nullable=field.name != "id")
        for field in entity.fields
    ]
    return Table(
        entity.table_name,
        metadata,
        *columns,
        Column("extra", Json(), comment="fields without a column, and values that do not fit their column"),
        Column(
            "_version", BigInteger(), comment="hash of the record as received; tells an unchanged row cheaply"
        ),
        Column("_synced_at", Instant(), comment="when this content was written"),
        Column("_deleted_at", Instant(), comment="set by DELETE_MODE=soft"),
    )


ENTITY_TABLES: dict[Entity, Table] = {entity: _entity_table(entity) for entity in Entity}

changes = Table(
    "rally_changes",
    metadata,
    # A source that was restored from a backup gives ids a second time, so an entry is known by its whole content.
    Column("id", BigInteger(), primary_key=True, autoincrement=False),
    Column("changed_at", Instant(), primary_key=True),
    Column("entity_type", Text(collated=True), primary_key=True),
    Column("entity_id", Text(collated=True), primary_key=True),
    Column("action", Text(collated=True), primary_key=True),
    Column("changed_by", Text()),
    Column("recorded_at", Instant(), nullable=False),
)
Index("rally_changes_changed_at", changes.c.changed_at)

dirty = Table(
    "rally_dirty",
    metadata,
    Column("entity_type", Text(collated=True), primary_key=True),
    Column("entity_id", Text(collated=True), primary_key=True),
    Column(
        "mark",
        BigInteger(),
        nullable=False,
        comment="raised by every new hint; a look clears the mark it saw",
    ),
    Column("first_seen", Instant(), nullable=False, comment="server time of the oldest unsettled hint"),
    Column(
        "last_seen",
        Instant(),
        nullable=False,
        comment="server time of the newest hint; evidence begins V later",
    ),
    Column(
        "changed_at", Instant(), comment="oldest changedAt among the hints; null for hints without a time"
    ),
    Column("reason", Text(), nullable=False),
    Column("attempts", Integer(), nullable=False),
    Column("retry_at", Instant(), comment="server time before which a failing look is not repeated"),
)
Index("rally_dirty_due", dirty.c.entity_type, dirty.c.last_seen)

tombstones = Table(
    "rally_tombstones",
    metadata,
    Column("entity_type", Text(collated=True), primary_key=True),
    Column("entity_id", Text(collated=True), primary_key=True),
    Column("deleted_at", Instant(), nullable=False, comment="server time of the look that proved the delete"),
)

feed_windows = Table(
    "rally_feed_windows",
    metadata,
    Column("window_start", Instant(), primary_key=True),
    Column("window_end", Instant(), nullable=False),
    Column("entries", Integer(), nullable=False),
    Column(
        "closed_at",
        Instant(),
        nullable=False,
        comment="server time of the read that made the window complete",
    ),
)

extract_required = Table(
    "rally_extract_required",
    metadata,
    Column("entity_type", Text(collated=True), primary_key=True),
    Column("reason", Text(), nullable=False),
    Column(
        "since", Instant(), nullable=False, comment="a full extract that began later lifts the requirement"
    ),
)

extract_pages = Table(
    "rally_extract_pages",
    metadata,
    Column("entity_type", Text(collated=True), primary_key=True),
    Column("generation", Integer(), primary_key=True, autoincrement=False),
    Column("page", Integer(), primary_key=True, autoincrement=False),
    Column("page_offset", Integer(), nullable=False),
    Column("row_keys", LargeBinary(), nullable=False, comment="16 bytes a row: what the pass has met"),
    Column("row_versions", LargeBinary(), nullable=False, comment="8 bytes a row: in which version"),
)
