"""The assets of Rally.

`rally_extract/<entity>`: a full pass over the list. `rally_feed/changes`: the change feed in hourly windows.
`rally/<entity>`: the mirror itself; it settles the marks that the two others left.
Running any of them again, late, twice or out of order changes nothing that is right already.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from rally_pipeline.orchestration import checks, metadata, policy
from rally_pipeline.orchestration.failures import clear_failures
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.windows import HOUR, hourly_partition, window_key, window_start
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.entities import Entity
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import RallyMirror
    from rally_pipeline.rally.results import ChangesResult, Coverage, MirrorStatus, TableStatus

FEED = ("rally_feed", "changes")
FEED_POOL = "rally_feed"
WINDOWS_A_RUN = 24
COVERAGE = "coverage_without_gaps"
LATENESS = "lateness_within_overlap"
COMPLETE = "pass_is_complete"
OVERDUE_FLOOR_SECONDS = 900


def extract_key(entity: Entity) -> tuple[str, str]:
    """Asset key of the full extract of `entity`."""
    return ("rally_extract", entity.value)


def mirror_key(entity: Entity) -> tuple[str, str]:
    """Asset key of the mirror of `entity`."""
    return ("rally", entity.value)


def pool_of(entity: Entity) -> str:
    """Extract, settling and healing of one entity write the same rows: one at a time."""
    return f"rally_{entity.value}"


class ExtractConfig(dg.Config):
    """Launchpad options of a full extract."""

    restart: bool = Field(
        default=False, description="Begin a new pass although an unfinished one could be resumed."
    )
    updated_only: bool = Field(
        default=False,
        description="Read only records updated since the last pass (`updatedSince`); cheap, but blind to deletes.",
    )


class SettleConfig(dg.Config):
    """Launchpad options of settling."""

    wait: bool = Field(
        default=True,
        description="Wait until every mark is old enough to be settled; otherwise leave fresh ones to the next run.",
    )


def extract_asset(entity: Entity) -> dg.AssetsDefinition:
    """The full extract of one entity, resumable page by page."""
    key = extract_key(entity)

    @dg.asset(
        key=list(key),
        group_name="rally_extract",
        kinds={"python", "sql"},
        description=f"One full pass over Rally's list of {entity.value} into `{entity.table_name}`. An interrupted"
        " pass is resumed. Rows that the pass did not meet are only marked; a look decides.",
        pool=pool_of(entity),
        retry_policy=policy.RETRIES,
        check_specs=[
            checks.spec(checks.KEYS, key),
            checks.spec(checks.QUARANTINE, key),
            checks.spec(
                COMPLETE, key, "Pages were anchored to each other, so that no page shift can hide a row."
            ),
        ],
    )
    def extract(
        context: dg.AssetExecutionContext,
        config: ExtractConfig,
        rally: RallyResource,
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
        with clear_failures(), rally.mirror(warehouse, context.log) as mirror:
            if config.updated_only:
                result = mirror.extract_updated(entity)
            else:
                result = mirror.extract(entity, restart=config.restart)
            table = _table_of(mirror.status(), entity)
            return dg.MaterializeResult(
                metadata={
                    **metadata.numbers("rally", result.counts()),
                    **_table_metadata(entity, table, warehouse.db_schema),
                },
                check_results=[
                    _keys_check(mirror, entity, key),
                    checks.quarantine(result.quarantined, table.quarantined, key),
                    dg.AssetCheckResult(
                        check_name=COMPLETE,
                        passed=result.verified,
                        severity=dg.AssetCheckSeverity.WARN,
                        metadata={"step_backs": result.step_backs, "pages": result.pages},
                    ),
                ],
            )

    return extract


def feed_asset(settings: Settings) -> dg.AssetsDefinition:
    """The change feed's log in hourly windows."""

    @dg.asset(
        key=list(FEED),
        group_name="rally_feed",
        kinds={"python", "sql"},
        description="Rally's change feed as recorded in `rally_changes`, in hourly UTC windows, the running hour"
        " included. A backfill of any range is safe: it only adds entries and marks.",
        partitions_def=hourly_partition(settings.rally_feed_start),
        backfill_policy=dg.BackfillPolicy.multi_run(WINDOWS_A_RUN),
        pool=FEED_POOL,
        retry_policy=policy.RETRIES,
        freshness_policy=policy.hourly_freshness(),
        check_specs=[
            checks.spec(COVERAGE, FEED, "The log is complete from its base to the last closed read."),
            checks.spec(
                LATENESS, FEED, "Late entries appear well within the overlap (alarm above its half)."
            ),
            checks.spec(checks.QUARANTINE, FEED),
        ],
    )
    def changes(
        context: dg.AssetExecutionContext, rally: RallyResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
        window = context.partition_time_window
        with clear_failures(), rally.mirror(warehouse, context.log) as mirror:
            result = mirror.read_changes(window.start, window.end)
            _refuse_incomplete(result)
            coverage = mirror.coverage()
            entries = _entries_of(mirror, context.partition_keys)
            rows = mirror.status().changes_recorded
        context.log.info(
            f"windows {window_key(window.start)} to {window_key(window.end - HOUR)}: {result.recorded} new of"
            f" {result.received} entries, {result.marked} objects marked, {result.cost.requests} requests"
        )
        for key, count in entries.items():
            context.add_asset_metadata(metadata.partition_row_count(count), partition_key=key)
        return dg.MaterializeResult(
            metadata={**_feed_metadata(result, coverage, warehouse.db_schema), **metadata.row_count(rows)},
            check_results=_feed_checks(result, coverage, settings.rally_feed_overlap_seconds),
        )

    return changes


def mirror_asset(entity: Entity, settings: Settings) -> dg.AssetsDefinition:
    """The mirror table of one entity, brought up to date by looking at every marked object."""
    key = mirror_key(entity)
    bound = max(OVERDUE_FLOOR_SECONDS, 10 * settings.rally_staleness_seconds)

    @dg.asset(
        key=list(key),
        group_name="rally",
        kinds={"sql", "table"},
        deps=[dg.AssetKey(list(extract_key(entity))), dg.AssetKey(list(FEED))],
        description=f"Table `{entity.table_name}`: every row is a state that Rally really had. Settles the marks of"
        " the full extract and of the change feed by looking at each object; only a look writes or deletes.",
        pool=pool_of(entity),
        retry_policy=policy.RETRIES,
        freshness_policy=policy.hourly_freshness(),
        check_specs=[
            checks.spec(checks.KEYS, key),
            checks.spec(checks.MARKS, key),
            checks.spec(checks.QUARANTINE, key),
        ],
    )
    def mirror_table(
        context: dg.AssetExecutionContext,
        config: SettleConfig,
        rally: RallyResource,
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
        with clear_failures(), rally.mirror(warehouse, context.log) as mirror:
            result = mirror.settle(entity, wait=config.wait)
            status = mirror.status()
            table = _table_of(status, entity)
            return dg.MaterializeResult(
                metadata={
                    **metadata.numbers("rally", result.counts()),
                    **_table_metadata(entity, table, warehouse.db_schema),
                    **_lag_metadata(status),
                },
                check_results=[
                    _keys_check(mirror, entity, key),
                    checks.marks(table.open_marks, table.oldest_mark_seconds, bound, key),
                    checks.quarantine(result.quarantined, table.quarantined, key),
                ],
            )

    return mirror_table


def _table_of(status: "MirrorStatus", entity: Entity) -> "TableStatus":
    (found,) = (table for table in status.tables if table.table == entity.table_name)
    return found


def _refuse_incomplete(result: "ChangesResult") -> None:
    """A window that cannot be read completely is red, never green with the rows that happened to be left."""
    if result.snapshot_required:
        raise dg.Failure(
            f"the log cannot be completed from the feed: {result.snapshot_required}. A full extract is required"
            " (job rally_full_extract); the sensor requests it when it is on",
            allow_retries=False,
        )


def _entries_of(mirror: "RallyMirror", keys: Sequence[str]) -> dict[str, int]:
    """Entries recorded in each window of the run."""
    from rally_pipeline.rally.windows import count_entries

    with mirror.warehouse.reading() as transaction:
        return {key: count_entries(transaction, window_start(key)) for key in keys}


def _keys_check(mirror: "RallyMirror", entity: Entity, key: tuple[str, str]) -> dg.AssetCheckResult:
    from rally_pipeline.rally.tables import ENTITY_TABLES

    with mirror.warehouse.reading() as transaction:
        return checks.keys(transaction, ENTITY_TABLES[entity], key)


def _table_metadata(entity: Entity, table: "TableStatus", schema: str | None) -> metadata.Metadata:
    from rally_pipeline.rally.tables import ENTITY_TABLES

    return {
        **metadata.row_count(table.rows),
        **metadata.table(ENTITY_TABLES[entity], schema=schema),
        **metadata.numbers("rally", {"open_marks": table.open_marks, "quarantined_now": table.quarantined}),
    }


def _lag_metadata(status: "MirrorStatus") -> metadata.Metadata:
    lag = {} if status.lag_seconds is None else {"lag_seconds": status.lag_seconds}
    return {
        **metadata.numbers("rally", lag),
        **metadata.instant("rally/synced_through", status.synced_through),
    }


def _feed_metadata(result: "ChangesResult", coverage: "Coverage", schema: str | None) -> metadata.Metadata:
    from rally_pipeline.rally.tables import changes

    return {
        **metadata.numbers("rally", result.counts()),
        **metadata.table(changes, schema=schema),
        **metadata.instant("rally/recorded_through", coverage.through),
    }


def _feed_checks(
    result: "ChangesResult", coverage: "Coverage", overlap_seconds: int
) -> list[dg.AssetCheckResult]:
    through = metadata.instant("through", coverage.through)
    return [
        dg.AssetCheckResult(
            check_name=COVERAGE,
            passed=coverage.problem is None,
            description=coverage.problem,
            metadata={"gaps": len(coverage.gaps), **through},
        ),
        dg.AssetCheckResult(
            check_name=LATENESS,
            passed=result.late_seconds <= overlap_seconds / 2,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"late_seconds": result.late_seconds, "overlap_seconds": overlap_seconds},
        ),
        checks.quarantine(result.parked, result.parked, FEED),
    ]
