"""The table `signalsmith_runs`: every run that Dagster started, followed or saw, with its latest state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import false, func, select

from rally_pipeline.clock import Clock
from rally_pipeline.signalsmith import tables
from rally_pipeline.signalsmith.records import TERMINAL, Run
from rally_pipeline.warehouse.values import clean_text, instant_text

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction, Warehouse

WATCH_STREAM = "signalsmith.runs"
COLUMNS = (
    "sync_id", "id", "status", "created_at", "started_at", "completed_at", "seconds", "rows_synced",
    "rows_failed", "error_message", "triggered_by", "origin", "dagster_run_id", "reported", "_synced_at",
)  # fmt: skip


class RunHistory:
    """Writes and reads the run history. A run that ended never changes again."""

    def __init__(self, warehouse: Warehouse, clock: Clock) -> None:
        self._warehouse = warehouse
        self._clock = clock

    def record(self, runs: Iterable[Run], *, origin: str, dagster_run_id: str | None = None) -> None:
        """Store these states; what is known of origin and reporting of a run is kept."""
        found = list(runs)
        if not found:
            return
        with self._warehouse.transaction("signalsmith.runs") as transaction:
            known = self._known(transaction, found)
            rows = []
            for run in found:
                origin_before, dagster_before, reported_before = known.get(
                    (run.sync_id, run.id), (None, None, False)
                )
                rows.append(
                    self._row(
                        run,
                        origin_before or origin,
                        dagster_run_id or dagster_before,
                        reported=reported_before,
                    )
                )
            transaction.upsert(tables.runs, COLUMNS, rows, touch=["_synced_at"])

    def watching_since(self, now: datetime) -> datetime | None:
        """Server time of the first look for runs of others; None at that very look, which notes `now`."""
        with self._warehouse.reading() as transaction:
            state = transaction.state(WATCH_STREAM)
        if state is not None:
            return datetime.fromisoformat(state["since"])
        with self._warehouse.transaction("signalsmith.watch") as transaction:
            transaction.set_state(WATCH_STREAM, {"since": now.isoformat()})
        return None

    def ended(self, last_runs: dict[str, str]) -> set[str]:
        """Of syncs and their last run: those syncs whose last run is recorded as ended."""
        table = tables.runs
        query = select(table.c.sync_id, table.c.id).where(table.c.status.in_(sorted(TERMINAL)))
        found: set[str] = set()
        with self._warehouse.reading() as transaction:
            for part in _parts(list(last_runs.values())):
                for sync_id, run_id in transaction.rows(query.where(table.c.id.in_(part))):
                    if last_runs.get(str(sync_id)) == run_id:
                        found.add(str(sync_id))
        return found

    def newest(self, sync_id: str) -> datetime | None:
        """When the newest recorded run of a sync was created; None where none is recorded."""
        table = tables.runs
        query = select(func.max(table.c.created_at)).where(table.c.sync_id == sync_id)
        with self._warehouse.reading() as transaction:
            value = transaction.scalar(query)
        return value if isinstance(value, datetime) else None

    def is_recorded(self, sync_id: str, run_id: str) -> bool:
        """Whether any state of the run is known."""
        table = tables.runs
        query = select(table.c.id).where(table.c.sync_id == sync_id, table.c.id == run_id)
        with self._warehouse.reading() as transaction:
            return transaction.scalar(query) is not None

    def unreported(self, limit: int) -> list[Run]:
        """Ended runs that are not known to be shown in Dagster, the oldest first."""
        table = tables.runs
        names = [field.name for field in fields(Run)]
        query = (
            select(*(table.c[name] for name in names))
            .where(table.c.reported.is_(false()), table.c.status.in_(sorted(TERMINAL)))
            .order_by(table.c.completed_at, table.c.id)
            .limit(limit)
        )
        with self._warehouse.reading() as transaction:
            rows = transaction.rows(query)
        return [Run(**{**dict(zip(names, row, strict=True)), "error_message": row[-2] or ""}) for row in rows]

    def mark_reported(self, runs: Iterable[Run]) -> None:
        """Dagster shows these runs."""
        table = tables.runs
        found = list(runs)
        if not found:
            return
        with self._warehouse.transaction("signalsmith.reported") as transaction:
            for run in found:
                transaction.execute(
                    table.update()
                    .where(table.c.sync_id == run.sync_id, table.c.id == run.id)
                    .values(reported=True)
                )

    def followers(self, run_ids: Iterable[str]) -> dict[str, str]:
        """The Dagster run that follows each of these runs, from the intents: bound runs only."""
        table = tables.intents
        query = select(table.c.run_id, table.c.dagster_run_id).where(
            table.c.run_id.in_(list(run_ids)), table.c.dagster_run_id.is_not(None)
        )
        with self._warehouse.reading() as transaction:
            return {str(run_id): str(dagster_run_id) for run_id, dagster_run_id in transaction.rows(query)}

    def _known(
        self, transaction: Transaction, runs: list[Run]
    ) -> dict[tuple[str, str], tuple[str | None, str | None, bool]]:
        table = tables.runs
        found = {}
        for sync_id in {run.sync_id for run in runs}:
            ids = [run.id for run in runs if run.sync_id == sync_id]
            query = select(table.c.id, table.c.origin, table.c.dagster_run_id, table.c.reported).where(
                table.c.sync_id == sync_id, table.c.id.in_(ids)
            )
            for run_id, origin, dagster_run_id, reported in transaction.rows(query):
                found[sync_id, str(run_id)] = (origin, dagster_run_id, bool(reported))
        return found

    def _row(
        self, run: Run, origin: str, dagster_run_id: str | None, *, reported: bool
    ) -> tuple[str | int | float | bool | None, ...]:
        return (
            run.sync_id,
            run.id,
            run.status,
            _instant(run.created_at),
            _instant(run.started_at),
            _instant(run.completed_at),
            run.seconds,
            run.rows_synced,
            run.rows_failed,
            clean_text(run.error_message) or None,
            run.triggered_by,
            origin,
            dagster_run_id,
            reported,
            instant_text(self._clock.now()),
        )


def _instant(value: datetime | None) -> str | None:
    return None if value is None else instant_text(value)


def _parts(values: list[str], size: int = 500) -> Iterator[list[str]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
