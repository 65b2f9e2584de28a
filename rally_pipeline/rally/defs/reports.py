"""What a materialisation of Rally shows: metadata and check results, from the engine's results and the warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from rally_pipeline.orchestration import checks, metadata
from rally_pipeline.orchestration.windows import window_start
from rally_pipeline.rally.defs.names import FEED, SYNCED_THROUGH, extract_key, mirror_key
from rally_pipeline.rally.entities import Entity

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import RallyMirror
    from rally_pipeline.rally.results import ChangesResult, Coverage, ExtractResult, SettleResult
    from rally_pipeline.warehouse import Transaction

COVERAGE = "coverage_without_gaps"
LATENESS = "lateness_within_overlap"
COMPLETE = "pass_is_complete"
CAPACITY = "feed_pages_hold_enough"
FRESH = "looks_are_fresh"
NO_REPAIRS = "reconcile_found_nothing"


@dataclass(frozen=True, slots=True)
class TableReport:
    """One mirror table after a step. Every figure is one cheap query, so that a step may ask each minute."""

    rows: int
    open_marks: int
    oldest_mark_seconds: float | None
    quarantined: list[tuple[str, str]]
    """(key, reason), the oldest first."""
    keys: dg.AssetCheckResult
    one_writer: dg.AssetCheckResult
    repaired: int | None
    """Rows that the last comparison with Rally had to change; None before the first."""


def report_table(mirror: RallyMirror, entity: Entity, asset: Sequence[str]) -> TableReport:
    """Read the figures of one table in one consistent transaction."""
    from sqlalchemy import func, select

    from rally_pipeline.rally import marks
    from rally_pipeline.rally.tables import ENTITY_TABLES, dirty

    table = ENTITY_TABLES[entity]
    first = select(func.min(dirty.c.first_seen)).where(dirty.c.entity_type == entity.singular)
    now = mirror.guess_server_time()
    with mirror.warehouse.reading() as transaction:
        oldest: datetime | None = transaction.scalar(first)
        return TableReport(
            rows=transaction.count(table),
            open_marks=marks.count_marks(transaction, entity),
            oldest_mark_seconds=max(0.0, (now - oldest).total_seconds()) if oldest else None,
            quarantined=[(record.key, record.reason) for record in transaction.quarantined(entity.stream)],
            keys=checks.keys(transaction, table, asset),
            one_writer=checks.one_writer(transaction, entity.stream, asset),
            repaired=_last_repairs(transaction, entity),
        )


def _last_repairs(transaction: Transaction, entity: Entity) -> int | None:
    from rally_pipeline.rally.verify import verify_stream

    outcome = transaction.state(verify_stream(entity))
    return None if outcome is None else int(outcome["repaired"])


def extract_report(
    mirror: RallyMirror, entity: Entity, result: ExtractResult, schema: str | None
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
    """The materialisation of a full extract."""
    key = extract_key(entity)
    table = report_table(mirror, entity, key)
    doubt = _doubt(result, page_overlap=mirror.policy.page_overlap)
    complete = dg.AssetCheckResult(
        check_name=COMPLETE,
        asset_key=dg.AssetKey(list(key)),
        passed=doubt is None,
        severity=dg.AssetCheckSeverity.WARN,
        description=doubt,
        metadata={
            "step_backs": result.step_backs,
            "pages": result.pages,
            "largest_page": result.largest_page,
        },
    )
    return dg.MaterializeResult(
        metadata={**_table_metadata(entity, table, schema), **metadata.numbers("rally", result.counts())},
        check_results=[
            table.keys,
            checks.quarantine(result.quarantined, len(table.quarantined), key),
            complete,
        ],
    )


def _doubt(result: ExtractResult, *, page_overlap: int) -> str | None:
    """Why the pass may have missed rows (A3, A5), or None."""
    if not result.verified:
        return "the list came in no stable order; agreeing passes ended it"
    if result.unmet and result.largest_page <= page_overlap:
        return f"no page had more than {result.largest_page} rows, too few to tell where the list ends"
    return None


def mirror_report(
    mirror: RallyMirror, entity: Entity, result: SettleResult, schema: str | None, *, bound_seconds: float
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
    """The materialisation of a mirror table. `bound_seconds`: how old an open mark may be."""
    key = mirror_key(entity)
    table = report_table(mirror, entity, key)
    return dg.MaterializeResult(
        metadata={
            **_table_metadata(entity, table, schema),
            **_lag_metadata(mirror, mirror.coverage()),
            **metadata.numbers("rally", result.counts()),
        },
        check_results=[
            table.keys,
            checks.marks(table.open_marks, table.oldest_mark_seconds, bound_seconds, key),
            checks.quarantine(result.quarantined, len(table.quarantined), key),
            table.one_writer,
            _fresh(result, key),
            _no_repairs(table.repaired, key),
        ],
    )


def _fresh(result: SettleResult, key: Sequence[str]) -> dg.AssetCheckResult:
    """A2: an answer that is staler than the bound shows itself by a record older than what is known of it."""
    return dg.AssetCheckResult(
        check_name=FRESH,
        asset_key=dg.AssetKey(list(key)),
        passed=result.behind == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description="records were older than the feed says: raise RALLY_STALENESS_SECONDS, or Rally's clocks differ"
        if result.behind
        else None,
        metadata={"behind": result.behind, "settled": result.settled},
    )


def _no_repairs(repaired: int | None, key: Sequence[str]) -> dg.AssetCheckResult:
    """A7: what the comparison had to repair was lost by the feed, or by a defect."""
    return dg.AssetCheckResult(
        check_name=NO_REPAIRS,
        asset_key=dg.AssetKey(list(key)),
        passed=not repaired,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"the last comparison with Rally repaired {repaired} rows; the target is 0"
        if repaired
        else None,
        metadata={} if repaired is None else {"reconcile_repairs": repaired},
    )


def feed_report(
    mirror: RallyMirror, result: ChangesResult, schema: str | None, *, overlap_seconds: int
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
    """The materialisation of the feed's log."""
    from rally_pipeline.rally.feed_state import FEED_STREAM
    from rally_pipeline.rally.tables import changes

    coverage = mirror.coverage()
    with mirror.warehouse.reading() as transaction:
        rows = transaction.count(changes)
        one_writer = checks.one_writer(transaction, FEED_STREAM, FEED)
    return dg.MaterializeResult(
        metadata={
            **metadata.row_count(rows),
            **metadata.table(changes, schema=schema),
            **_lag_metadata(mirror, coverage),
            **metadata.numbers("rally", result.counts()),
            "rally/lateness": dg.MetadataValue.json(dict(result.lateness)),
        },
        check_results=[
            *_feed_checks(result, coverage, overlap_seconds),
            one_writer,
            _capacity(result, mirror.policy.feed_capacity_floor),
        ],
    )


def _capacity(result: ChangesResult, floor: int) -> dg.AssetCheckResult:
    """A5: where pages are smaller than the floor, a group of equal times may be cut unnoticed."""
    return dg.AssetCheckResult(
        check_name=CAPACITY,
        asset_key=dg.AssetKey(list(FEED)),
        passed=result.cut_at == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"a feed page was full with {result.cut_at} entries; at least {floor} are relied on"
        if result.cut_at
        else None,
        metadata={"largest_page": result.capacity, "relied_on": floor, "cut_at": result.cut_at},
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


def _lag_metadata(mirror: RallyMirror, coverage: Coverage) -> metadata.Metadata:
    if coverage.through is None:
        return {}
    lag = (mirror.guess_server_time() - coverage.through).total_seconds()
    return {
        **metadata.numbers("rally", {"lag_seconds": max(0.0, lag)}),
        **metadata.instant(SYNCED_THROUGH, coverage.through),
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
