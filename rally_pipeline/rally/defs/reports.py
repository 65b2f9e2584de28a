"""What a materialisation of Rally shows: metadata and check results, from the engine's results and the warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from rally_pipeline.orchestration import checks, metadata
from rally_pipeline.orchestration.windows import window_start
from rally_pipeline.rally.defs.names import FEED, extract_key, mirror_key
from rally_pipeline.rally.entities import Entity

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import RallyMirror
    from rally_pipeline.rally.results import ChangesResult, Coverage, ExtractResult, SettleResult

COVERAGE = "coverage_without_gaps"
LATENESS = "lateness_within_overlap"
COMPLETE = "pass_is_complete"


@dataclass(frozen=True, slots=True)
class TableReport:
    """One mirror table after a step. Every figure is one cheap query, so that a step may ask each minute."""

    rows: int
    open_marks: int
    oldest_mark_seconds: float | None
    quarantined: list[tuple[str, str]]
    """(key, reason), the oldest first."""
    keys: dg.AssetCheckResult


def report_table(mirror: RallyMirror, entity: Entity, asset: Sequence[str]) -> TableReport:
    """Read the figures of one table in one consistent transaction."""
    from sqlalchemy import func, select

    from rally_pipeline.rally import marks
    from rally_pipeline.rally.tables import ENTITY_TABLES, dirty

    table = ENTITY_TABLES[entity]
    first = select(func.min(dirty.c.first_seen)).where(dirty.c.entity_type == entity.singular)
    with mirror.warehouse.reading() as transaction:
        oldest: datetime | None = transaction.scalar(first)
        return TableReport(
            rows=transaction.count(table),
            open_marks=marks.count_marks(transaction, entity),
            oldest_mark_seconds=max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest else None,
            quarantined=[(record.key, record.reason) for record in transaction.quarantined(entity.stream)],
            keys=checks.keys(transaction, table, asset),
        )


def extract_report(
    mirror: RallyMirror, entity: Entity, result: ExtractResult, schema: str | None
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
    """The materialisation of a full extract."""
    key = extract_key(entity)
    table = report_table(mirror, entity, key)
    complete = dg.AssetCheckResult(
        check_name=COMPLETE,
        asset_key=dg.AssetKey(list(key)),
        passed=result.verified,
        severity=dg.AssetCheckSeverity.WARN,
        description=None if result.verified else "the list came in no stable order; agreeing passes ended it",
        metadata={"step_backs": result.step_backs, "pages": result.pages},
    )
    return dg.MaterializeResult(
        metadata={**_table_metadata(entity, table, schema), **metadata.numbers("rally", result.counts())},
        check_results=[
            table.keys,
            checks.quarantine(result.quarantined, len(table.quarantined), key),
            complete,
        ],
    )


def mirror_report(
    mirror: RallyMirror, entity: Entity, result: SettleResult, schema: str | None, *, bound_seconds: float
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
    """The materialisation of a mirror table. `bound_seconds`: how old an open mark may be."""
    key = mirror_key(entity)
    table = report_table(mirror, entity, key)
    return dg.MaterializeResult(
        metadata={
            **_table_metadata(entity, table, schema),
            **_lag_metadata(mirror.coverage()),
            **metadata.numbers("rally", result.counts()),
        },
        check_results=[
            table.keys,
            checks.marks(table.open_marks, table.oldest_mark_seconds, bound_seconds, key),
            checks.quarantine(result.quarantined, len(table.quarantined), key),
        ],
    )


def feed_report(
    mirror: RallyMirror, result: ChangesResult, schema: str | None, *, overlap_seconds: int
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
    """The materialisation of the feed's log."""
    from rally_pipeline.rally.tables import changes

    coverage = mirror.coverage()
    with mirror.warehouse.reading() as transaction:
        rows = transaction.count(changes)
    return dg.MaterializeResult(
        metadata={
            **metadata.row_count(rows),
            **metadata.table(changes, schema=schema),
            **_lag_metadata(coverage),
            **metadata.numbers("rally", result.counts()),
        },
        check_results=_feed_checks(result, coverage, overlap_seconds),
    )


def entries_of(mirror: RallyMirror, keys: Sequence[str]) -> dict[str, int]:
    """Entries recorded in each window, by partition key."""
    from rally_pipeline.rally.windows import count_entries

    with mirror.warehouse.reading() as transaction:
        return {key: count_entries(transaction, window_start(key)) for key in keys}


def _table_metadata(entity: Entity, table: TableReport, schema: str | None) -> metadata.Metadata:
    from rally_pipeline.rally.tables import ENTITY_TABLES

    return {
        **metadata.row_count(table.rows),
        **metadata.table(ENTITY_TABLES[entity], schema=schema),
        **metadata.numbers(
            "rally", {"open_marks": table.open_marks, "quarantined_now": len(table.quarantined)}
        ),
        **metadata.rejects("rally/rejects", table.quarantined),
    }


def _lag_metadata(coverage: Coverage) -> metadata.Metadata:
    if coverage.through is None:
        return {}
    lag = (datetime.now(UTC) - coverage.through).total_seconds()
    return {
        **metadata.numbers("rally", {"lag_seconds": max(0.0, lag)}),
        **metadata.instant("rally/synced_through", coverage.through),
    }


def _feed_checks(
    result: ChangesResult, coverage: Coverage, overlap_seconds: int
) -> list[dg.AssetCheckResult]:
    feed = dg.AssetKey(list(FEED))
    return [
        dg.AssetCheckResult(
            check_name=COVERAGE,
            asset_key=feed,
            passed=coverage.problem is None,
            description=coverage.problem,
            metadata={"gaps": len(coverage.gaps), **metadata.instant("through", coverage.through)},
        ),
        dg.AssetCheckResult(
            check_name=LATENESS,
            asset_key=feed,
            passed=result.late_seconds <= overlap_seconds / 2,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"late_seconds": result.late_seconds, "overlap_seconds": overlap_seconds},
        ),
        checks.quarantine(result.parked, result.parked, FEED),
    ]
