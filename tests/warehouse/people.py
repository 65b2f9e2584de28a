"""One table with every column type, and rows for it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rally_pipeline.warehouse.plans import Row
from rally_pipeline.warehouse.types import BigInteger, Boolean, ExactDecimal, Instant, Json, Text

metadata = sa.MetaData()

people = sa.Table(
    "people",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("name", Text),
    sa.Column("email", Text),
    sa.Column("age", BigInteger),
    sa.Column("wealth", ExactDecimal),
    sa.Column("is_active", Boolean),
    sa.Column("tags", Json),
    sa.Column("updated_at", Instant),
    sa.Column("_version", BigInteger),
    sa.Column("_synced_at", Instant),
)

links = sa.Table(
    "links",
    metadata,
    sa.Column("kind", Text, primary_key=True),
    sa.Column("number", BigInteger, primary_key=True),
    sa.Column("note", Text),
    sa.Column("_deleted_at", Instant),
)

COLUMNS = tuple(column.name for column in people.columns)
LINK_COLUMNS = ("kind", "number", "note")


def instant(seconds: int) -> str:
    """The canonical text of a moment on 2 January 2026."""
    return f"2026-01-02T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.000000Z"


def person(key: str | None, **values: Any) -> Row:
    """A row for `people` with every column filled."""
    row: dict[str, Any] = {
        "id": key,
        "name": f"name of {key}",
        "email": f"{key}@example.com",
        "age": 40,
        "wealth": "12.5",
        "is_active": True,
        "tags": '["a","b"]',
        "updated_at": instant(0),
        "_version": 1,
        "_synced_at": instant(0),
    }
    return tuple((row | values).values())
