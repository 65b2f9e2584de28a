"""The assets of Rally.

`rally_extract/<entity>`: a full pass over the list. `rally_feed/changes`: the change feed in hourly windows.
`rally/<entity>`: the mirror itself; it settles the marks that the two others left.
Running any of them again, late, twice or out of order changes nothing that is right already.
"""

from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from rally_pipeline.orchestration import checks, policy
from rally_pipeline.orchestration.failures import clear_failures
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.windows import HOUR, hour_of, hourly_partition, window_key
from rally_pipeline.rally.defs import reports
from rally_pipeline.rally.defs.names import FEED, extract_key, mirror_key
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.entities import Entity
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from rally_pipeline.rally.results import ChangesResult, Coverage

WINDOWS_A_RUN = 24
OVERDUE_FLOOR_SECONDS = 900


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


def extract_asset(entity: Entity, settings: Settings) -> dg.AssetsDefinition:
    """The full extract of one entity, resumable page by page."""
    key = extract_key(entity)

    @dg.asset(
        key=list(key),
        group_name="rally_extract",
        kinds={"python", policy.warehouse_kind(settings)},
        description=f"One full pass over Rally's list of {entity.value} into `{entity.table_name}`. An interrupted"
        " pass is resumed. Rows that the pass did not meet are only marked; a look decides.",
        check_specs=[
            checks.spec(checks.KEYS, key),
            checks.spec(checks.QUARANTINE, key),
            checks.spec(
                reports.COMPLETE, key, "Pages were anchored to each other: no page shift can hide a row."
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
            return reports.extract_report(mirror, entity, result, warehouse.db_schema)

    return extract


def feed_asset(settings: Settings) -> dg.AssetsDefinition:
    """The change feed's log in hourly windows."""

    @dg.asset(
        key=list(FEED),
        group_name="rally_feed",
        kinds={"python", policy.warehouse_kind(settings)},
        description="Rally's change feed as recorded in `rally_changes`, in hourly UTC windows, the running hour"
        " included. A backfill of any range is safe: it only adds entries and marks.",
        partitions_def=hourly_partition(settings.rally_feed_start),
        backfill_policy=dg.BackfillPolicy.multi_run(WINDOWS_A_RUN),
        freshness_policy=policy.hourly_freshness(),
        check_specs=[
            checks.spec(reports.COVERAGE, FEED, "The log is complete from its base to the last closed read."),
            checks.spec(
                reports.LATENESS,
                FEED,
                "Late entries appear well within the overlap (A1; alarm above its half).",
            ),
            checks.spec(checks.QUARANTINE, FEED),
            checks.spec(checks.ONE_WRITER, FEED),
            checks.spec(
                reports.CAPACITY, FEED, "Feed pages hold at least as many entries as is relied on (A5)."
            ),
        ],
    )
    def changes(
        context: dg.AssetExecutionContext, rally: RallyResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
        window = context.partition_time_window
        with clear_failures(), rally.mirror(warehouse, context.log) as mirror:
            result = mirror.read_changes(first_unread(window.start, mirror.coverage()), window.end)
            _refuse_incomplete(result)
            windows = reports.window_metadata(mirror, result, context.partition_keys)
            report = reports.feed_report(
                mirror, result, warehouse.db_schema, overlap_seconds=rally.overlap_seconds
            )
        context.log.info(
            f"windows {window_key(window.start)} to {window_key(window.end - HOUR)}: {result.recorded} new of"
            f" {result.received} entries, {result.marked} objects marked, {result.cost.requests} requests"
        )
        for key, shown in windows.items():
            context.add_asset_metadata(shown, partition_key=key)
        return report

    return changes


def mirror_asset(entity: Entity, settings: Settings) -> dg.AssetsDefinition:
    """The mirror table of one entity, brought up to date by looking at every marked object."""
    key = mirror_key(entity)

    @dg.asset(
        key=list(key),
        group_name="rally",
        kinds={"table", policy.warehouse_kind(settings)},
        deps=[dg.AssetKey(list(extract_key(entity))), dg.AssetKey(list(FEED))],
        description=f"Table `{entity.table_name}`: every row is a state that Rally really had. Settles the marks of"
        " the full extract and of the change feed by looking at each object; only a look writes or deletes.",
        freshness_policy=policy.hourly_freshness(),
        check_specs=[
            checks.spec(checks.KEYS, key),
            checks.spec(checks.MARKS, key),
            checks.spec(checks.QUARANTINE, key),
            checks.spec(checks.ONE_WRITER, key),
            checks.spec(
                reports.FRESH,
                key,
                "No settled look showed a record older than the change that named it (A2).",
            ),
            checks.spec(
                reports.NO_REPAIRS,
                key,
                "The last comparison with Rally found nothing to repair and left nothing different (A7).",
            ),
        ],
    )
    def mirror_table(
        context: dg.AssetExecutionContext,
        config: SettleConfig,
        rally: RallyResource,
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
        bound = float(max(OVERDUE_FLOOR_SECONDS, 10 * rally.staleness_seconds))
        with clear_failures(), rally.mirror(warehouse, context.log) as mirror:
            result = mirror.settle(entity, wait=config.wait)
            return reports.mirror_report(mirror, entity, result, warehouse.db_schema, bound_seconds=bound)

    return mirror_table


def first_unread(start: datetime, coverage: "Coverage") -> datetime:
    """Where a run for windows from `start` on has to begin.

    The hour in which the last read stopped is complete up to there; reading it from its beginning at every tick would
    cost a page for each thousand entries of the hour. Hours before it are read again as asked: that is a backfill.
    """
    through = coverage.through
    if through is not None and start == hour_of(through):
        return through
    return start


def _refuse_incomplete(result: "ChangesResult") -> None:
    """A window that cannot be read completely is red, never green with the rows that happened to be left."""
    if result.snapshot_required:
        raise dg.Failure(
            f"the log cannot be completed from the feed: {result.snapshot_required}. A full extract is required"
            " (job rally_full_extract); the sensor requests it when it is on",
            allow_retries=False,
        )
