"""SignalSmith's tables: the catalog and the run history for people, intents for the engine."""

from __future__ import annotations

from sqlalchemy import Column, Index, MetaData, Table

from rally_pipeline.warehouse.types import Boolean, Double, Instant, Integer, Json, Text

metadata = MetaData()

syncs = Table(
    "signalsmith_syncs",
    metadata,
    Column("id", Text(collated=True), primary_key=True),
    Column("slug", Text(), nullable=False, comment="part of every name in Dagster; never changes for an id"),
    Column("name", Text()),
    Column("description", Text()),
    Column("status", Text()),
    Column("status_error", Text()),
    Column("model_id", Text()),
    Column("model_name", Text()),
    Column("destination_id", Text()),
    Column("sync_mode", Text()),
    Column("primary_key", Text()),
    Column("schedule", Text(), comment="cron as SignalSmith has it"),
    Column("dagster_schedule", Text(), comment="cron as Dagster uses it; null where there is no schedule"),
    Column("no_schedule_reason", Text(), comment="why there is none, or why its ticks skip"),
    Column("timezone", Text(), comment="zone in which the cron is read"),
    Column("ownership", Text(), nullable=False),
    Column("field_mapping", Json()),
    Column("config", Json()),
    Column("created_at", Instant()),
    Column("gone_since", Instant(), comment="not listed any more since then"),
    Column("_synced_at", Instant(), nullable=False),
)

runs = Table(
    "signalsmith_runs",
    metadata,
    Column("sync_id", Text(collated=True), primary_key=True),
    Column("id", Text(collated=True), primary_key=True),
    Column("status", Text(), nullable=False),
    Column("created_at", Instant()),
    Column("started_at", Instant(), comment="includes the time in the queue"),
    Column("completed_at", Instant()),
    Column("seconds", Double(), comment="from start to completion"),
    Column("rows_synced", Integer(), nullable=False),
    Column("rows_failed", Integer(), nullable=False),
    Column("error_message", Text()),
    Column("triggered_by", Text()),
    Column("origin", Text(), comment="how Dagster came to it: triggered, attached, adopted, elsewhere"),
    Column("dagster_run_id", Text(), comment="the Dagster run that followed it last"),
    Column(
        "reported", Boolean(), nullable=False, comment="Dagster shows it as a materialisation or observation"
    ),
    Column("_synced_at", Instant(), nullable=False),
)
Index("signalsmith_runs_created_at", runs.c.sync_id, runs.c.created_at)
Index("signalsmith_runs_id", runs.c.id)
Index("signalsmith_runs_unreported", runs.c.reported, runs.c.completed_at)

intents = Table(
    "signalsmith_intents",
    metadata,
    Column("sync_id", Text(collated=True), primary_key=True),
    Column("request", Text(collated=True), primary_key=True, comment="a tick, or a Dagster run"),
    Column("state", Text(), nullable=False, comment="sending, bound, refused, unknown"),
    Column("attempts", Integer(), nullable=False, comment="triggers that may have reached SignalSmith"),
    Column("noted_at", Instant(), nullable=False, comment="server time before the trigger"),
    Column("noted_runs", Json(), nullable=False, comment="runs that existed before it"),
    Column("run_id", Text()),
    Column("origin", Text()),
    Column("dagster_run_id", Text()),
    Column("updated_at", Instant(), nullable=False),
)
Index("signalsmith_intents_run", intents.c.sync_id, intents.c.run_id)
Index("signalsmith_intents_run_id", intents.c.run_id)
