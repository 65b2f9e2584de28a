"""The warehouse's own tables; every other table belongs to the room that fills it."""

from __future__ import annotations

import sqlalchemy as sa

from rally_pipeline.warehouse.types import BigInteger, Instant, Integer, Json, Text

SCHEMA_VERSION = 1
"""Raised whenever an older package version could no longer write correctly to what this one writes."""

metadata = sa.MetaData()

warehouse_identity = sa.Table(
    "warehouse_identity",
    metadata,
    sa.Column("only_row", Integer, primary_key=True, autoincrement=False),
    sa.Column("id", Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("schema_version", Integer, nullable=False),
    sa.Column("place", Json, nullable=False),
    sa.Column("witness_count", BigInteger, nullable=False),
)

sync_state = sa.Table(
    "sync_state",
    metadata,
    sa.Column("stream", Text, primary_key=True),
    sa.Column("value", Json, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("stream", Text, primary_key=True),
    sa.Column("fence", BigInteger, nullable=False),
    sa.Column("commits", BigInteger, nullable=False),
    sa.Column("holder", Json),
    sa.Column("taken_at", Instant),
    sa.Column("expires_at", Instant),
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("source", Text, primary_key=True),
    sa.Column("key", Text, primary_key=True),
    sa.Column("reason", Text, nullable=False),
    sa.Column("raw", Text, nullable=False),
    sa.Column("first_seen", Instant, nullable=False),
    sa.Column("last_seen", Instant, nullable=False),
    sa.Column("attempts", Integer, nullable=False),
)
