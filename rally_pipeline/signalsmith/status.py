"""How SignalSmith stands, from the catalog file and the warehouse alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith import tables
from rally_pipeline.signalsmith.catalog_file import SUSPECT, load_catalog
from rally_pipeline.signalsmith.records import TERMINAL
from rally_pipeline.signalsmith.schedules import zone_problem

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction, Warehouse

OLD_SECONDS = 86_400.0
SHOWN_SYNCS = 10


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """Figures of the catalog and of the run history; `live` runs have not ended as far as is known."""

    syncs: int
    skipped: int
    fetched_at: datetime | None
    age_seconds: float | None
    runs: int
    live: int
    oldest_live_seconds: float | None
    latest_run: datetime | None
    problems: tuple[str, ...]


def read_sync_status(settings: Settings, warehouse: Warehouse, clock: Clock | None = None) -> SyncStatus:
    """Read what is there; makes no request."""
    now = (clock or SystemClock()).now()
    loaded = load_catalog(settings.home_path, settings.signalsmith_workspace_id)
    fetched = loaded.catalog.fetched
    age = max(0.0, (now - fetched).total_seconds()) if fetched is not None else None
    warehouse.create_tables(tables.metadata)
    with warehouse.reading() as transaction:
        runs = transaction.count(tables.runs)
        live, oldest = _live(transaction)
        latest = transaction.scalar(select(func.max(tables.runs.c.created_at)))
        failed = _failed(transaction)
    problems = [loaded.problem] if loaded.problem else []
    if (settings.home_path / SUSPECT).exists():
        problems.append(f"a list that lost more than half of its syncs waits in {SUSPECT}")
    if age is not None and age > OLD_SECONDS:
        problems.append(f"the catalog is {age / 86_400:.0f} days old: materialize signalsmith/catalog")
    if loaded.catalog.entries and (problem := zone_problem(loaded.catalog)):
        problems.append(problem)
    return SyncStatus(
        syncs=len(loaded.catalog.present),
        skipped=len(loaded.catalog.skipped),
        fetched_at=fetched,
        age_seconds=age,
        runs=runs,
        live=live,
        oldest_live_seconds=max(0.0, (now - oldest).total_seconds()) if oldest is not None else None,
        latest_run=latest if isinstance(latest, datetime) else None,
        problems=(*problems, *failed),
    )


def _live(transaction: Transaction) -> tuple[int, datetime | None]:
    runs = tables.runs
    query = select(func.count(), func.min(runs.c.created_at)).where(runs.c.status.not_in(sorted(TERMINAL)))
    count, oldest = transaction.rows(query)[0]
    return int(count), oldest if isinstance(oldest, datetime) else None


def _failed(transaction: Transaction) -> list[str]:
    """Syncs whose latest run did not succeed, or left rows behind."""
    runs, syncs = tables.runs, tables.syncs
    newest = (
        select(runs.c.sync_id, func.max(runs.c.created_at).label("at")).group_by(runs.c.sync_id).subquery()
    )
    query = (
        select(syncs.c.slug, runs.c.status, runs.c.rows_failed, runs.c.error_message)
        .join(newest, (newest.c.sync_id == runs.c.sync_id) & (newest.c.at == runs.c.created_at))
        .join(syncs, syncs.c.id == runs.c.sync_id)
        .where((runs.c.status.in_(["failed", "cancelled"])) | (runs.c.rows_failed > 0))
        .order_by(syncs.c.slug)
    )
    found = []
    for slug, status, rows_failed, message in transaction.rows(query):
        what = (
            f"{rows_failed:,} rows failed"
            if status == "completed"
            else f"{status}: {message or 'no reason given'}"
        )
        found.append(f"{slug}: latest run: {' '.join(what.split())[:200]}")
    rest = len(found) - SHOWN_SYNCS
    return found[:SHOWN_SYNCS] + ([f"and {rest} more syncs"] if rest > 0 else [])
