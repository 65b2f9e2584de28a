"""What a materialisation of Rally shows: metadata and check results, from the engine's results and the warehouse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from rally_pipeline.orchestration import checks, metadata
from rally_pipeline.orchestration.windows import window_start
from rally_pipeline.rally.defs.names import FEED, extract_key, mirror_key
from rally_pipeline.rally.entities import Entity

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import RallyMirror
    from rally_pipeline.rally.results import ChangesResult, Coverage, ExtractResult, HourResult, SettleResult
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
    reconciled: tuple[int, int] | None
    """Rows that the last comparison with Rally repaired, and that it left different; None before the first."""


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
            one_writer=checks.one_writer(transaction, entity.stream, asset),
            reconciled=_last_comparison(transaction, entity),
        )


def _last_comparison(transaction: Transaction, entity: Entity) -> tuple[int, int] | None:
    from rally_pipeline.rally.table_comparison import verify_stream

    outcome = transaction.state(verify_stream(entity))
    # An older version stored no `left`.
    return None if outcome is None else (int(outcome["repaired"]), int(outcome.get("left", 0)))


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
            **_lag_metadata(mirror.coverage()),
            **metadata.numbers("rally", result.counts()),
        },
        check_results=[
            table.keys,
            checks.marks(table.open_marks, table.oldest_mark_seconds, bound_seconds, key),
            checks.quarantine(result.quarantined, len(table.quarantined), key),
            table.one_writer,
            _fresh(result, key),
            _no_repairs(table.reconciled, key),
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


def _no_repairs(found: tuple[int, int] | None, key: Sequence[str]) -> dg.AssetCheckResult:
    """A7: what the comparison had to repair was lost by the feed, or by a defect. In flight is neither."""
    repaired, left = found or (0, 0)
    return dg.AssetCheckResult(
        check_name=NO_REPAIRS,
        asset_key=dg.AssetKey(list(key)),
        passed=not repaired and not left,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"the last comparison with Rally repaired {repaired} rows and left {left} that differ;"
        " the target is 0"
        if repaired or left
        else None,
        metadata={} if found is None else {"reconcile_repairs": repaired, "reconcile_left": left},
    )


def reconciled(repaired: int, left: int, key: Sequence[str]) -> dg.AssetCheckEvaluation:
    """The same check at the comparison itself, so that nobody has to wait for the next materialisation."""
    result = _no_repairs((repaired, left), key)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(list(key)),
        check_name=NO_REPAIRS,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )


def feed_report(
    mirror: RallyMirror, result: ChangesResult, schema: str | None, *, overlap_seconds: int
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
    """What every window of a run shares: the table and the checks. Numbers are in `window_metadata`."""
    from rally_pipeline.rally.feed_state import FEED_STREAM
    from rally_pipeline.rally.tables import changes

    with mirror.warehouse.reading() as transaction:
        one_writer = checks.one_writer(transaction, FEED_STREAM, FEED)
    return dg.MaterializeResult(
        metadata=metadata.table(changes, schema=schema),
        check_results=[
            *_feed_checks(result, mirror.coverage(), overlap_seconds),
            one_writer,
            _capacity(result, mirror.policy.feed_capacity_floor),
        ],
    )


def window_metadata(
    mirror: RallyMirror, result: ChangesResult, keys: Sequence[str]
) -> dict[str, metadata.Metadata]:
    """What is shown of each window of a run, by partition key; the totals (`rally/run_…`) with the last one.

    `recorded`, `marked`, `late_entries` and `requests` of all windows, with what the run recorded of hours that are not
    its own (late entries of the hour before, for instance), add up to the totals.
    """
    from rally_pipeline.rally.windows import measure_window

    found: dict[str, metadata.Metadata] = {}
    through = mirror.coverage().through
    with mirror.warehouse.reading() as transaction:
        for key, part in _by_window(result, keys).items():
            entries, first, last = measure_window(transaction, part.start)
            found[key] = {
                **metadata.partition_row_count(entries),
                **metadata.numbers("rally", {**part.counts(), "known": entries - part.recorded}),
                **metadata.instant("rally/first_entry", first),
                **metadata.instant("rally/last_entry", last),
                # How far the window was known to be complete when it was shown last.
                **metadata.instant("rally/synced_through", through),
            }
    found[max(keys)] |= _run_metadata(mirror, result, keys)
    return found


def _by_window(result: ChangesResult, keys: Sequence[str]) -> dict[str, HourResult]:
    """Each window's part of the run. A request for no single window counts for the nearest or the first one."""
    from rally_pipeline.rally.results import HourResult

    known = {part.start: part for part in result.hours}
    starts = {key: window_start(key) for key in sorted(keys)}
    first, last = min(starts.values()), max(starts.values())
    requests = Counter({first: result.cost.requests})
    for part in result.hours:
        requests[first] -= part.requests
        requests[min(max(part.start, first), last)] += part.requests
    return {
        key: replace(known.get(start, HourResult(start)), requests=requests[start])
        for key, start in starts.items()
    }


def _run_metadata(mirror: RallyMirror, result: ChangesResult, keys: Sequence[str]) -> metadata.Metadata:
    """What is true of the run as a whole, or of the log at its end."""
    from rally_pipeline.rally.tables import changes

    own = {window_start(key) for key in keys}
    others = [part for part in result.hours if part.start not in own]
    totals = {
        **result.counts(),
        "windows": len(own),
        "late_entries": sum(part.late_entries for part in result.hours),
        "recorded_elsewhere": sum(part.recorded for part in others),
        "marked_elsewhere": sum(part.marked for part in others),
        "late_entries_elsewhere": sum(part.late_entries for part in others),
    }
    with mirror.warehouse.reading() as transaction:
        rows = transaction.count(changes)
    return {
        **metadata.row_count(rows),
        **_lag_metadata(mirror.coverage()),
        **metadata.numbers("rally", {f"run_{name}": value for name, value in totals.items()}),
        "rally/run_lateness": dg.MetadataValue.json(dict(result.lateness)),
    }


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
