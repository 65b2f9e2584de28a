"""The table `signalsmith_syncs`: the catalog for people, and where slugs survive the loss of the file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select

from rally_pipeline.settings import DeleteMode
from rally_pipeline.signalsmith import tables
from rally_pipeline.signalsmith.catalog import Catalog, Entry
from rally_pipeline.signalsmith.options import OptionsFile
from rally_pipeline.signalsmith.schedules import SchedulePlan
from rally_pipeline.warehouse.values import clean_text, instant_text, json_text

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction

INTENTS_KEPT = timedelta(days=90)


def stored_slugs(transaction: Transaction) -> dict[str, str]:
    """Slugs by id, as they were given."""
    rows = transaction.rows(select(tables.syncs.c.id, tables.syncs.c.slug))
    return {str(sync_id): str(slug) for sync_id, slug in rows}


def store_catalog(
    transaction: Transaction,
    catalog: Catalog,
    options: OptionsFile,
    plans: Mapping[str, SchedulePlan],
    at: datetime,
) -> None:
    """Make the table equal the catalog, row for row; forget intents that nobody can ask for any more."""
    now = instant_text(at)
    columns = [column.name for column in tables.syncs.columns]
    rows = [_row(entry, options, plans[entry.id], catalog.timezone, now) for entry in catalog.entries]
    transaction.upsert(tables.syncs, columns, rows, touch=["_synced_at"])
    kept = {entry.id for entry in catalog.entries}
    stored = [str(key) for (key,) in transaction.rows(select(tables.syncs.c.id))]
    transaction.delete(tables.syncs, [key for key in stored if key not in kept], mode=DeleteMode.HARD, at=now)
    transaction.execute(delete(tables.intents).where(tables.intents.c.updated_at < at - INTENTS_KEPT))


def _row(entry: Entry, options: OptionsFile, plan: SchedulePlan, zone: str, now: str) -> tuple[Any, ...]:
    def text(value: str) -> str | None:
        return clean_text(value) if value else None

    def instant(value: str) -> str | None:
        return instant_text(value) if value else None

    return (
        clean_text(entry.id),
        entry.slug,
        text(entry.name),
        text(entry.description),
        text(entry.status),
        text(entry.status_error),
        text(entry.model_id),
        text(entry.model_name),
        text(entry.destination_id),
        text(entry.sync_mode),
        text(entry.primary_key),
        text(entry.schedule),
        " and ".join(plan.cron.expressions) if plan.cron is not None else None,
        text(plan.hold or plan.reason),
        text(plan.zone or zone),
        options.of(entry.id, entry.name, entry.config).ownership.value,
        json_text(entry.field_mapping),
        json_text(entry.config),
        instant(entry.created_at),
        instant(entry.gone_since),
        now,
    )
