"""The asset `signalsmith/catalog`: fetches all syncs and says what changed and what was left out, and why."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from rally_pipeline.orchestration import metadata as shared_metadata
from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.failures import clear_failures
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith.catalog import label
from rally_pipeline.signalsmith.catalog_file import LoadedCatalog
from rally_pipeline.signalsmith.defs import metadata, names
from rally_pipeline.signalsmith.defs.reload import request_reload
from rally_pipeline.signalsmith.defs.resource import SignalSmithResource
from rally_pipeline.signalsmith.defs.sync_assets import SyncPlan

if TYPE_CHECKING:
    from rally_pipeline.signalsmith.refresh import RefreshResult

USABLE_CHECK = "every_sync_usable"
SCHEDULED_CHECK = "every_cron_scheduled"
STALE_AFTER = timedelta(hours=24)
_REFRESH_SECONDS = 900

CATALOG_JOB = dg.define_asset_job(
    names.CATALOG_JOB,
    selection=dg.AssetSelection.assets(list(names.CATALOG_KEY)),
    description="Fetch all syncs from SignalSmith and load the location anew if anything changed.",
    tags=policy.stream_tags("signalsmith.catalog", seconds=_REFRESH_SECONDS),
)


def catalog_asset(settings: Settings, loaded: LoadedCatalog, plans: list[SyncPlan]) -> dg.AssetsDefinition:
    """The asset; its definition already shows what the location was built from."""

    @dg.asset(
        key=list(names.CATALOG_KEY),
        group_name=names.GROUP,
        kinds={"python", "signalsmith"},
        description="All syncs of the SignalSmith workspace. The location is built from its file alone; materialize it"
        " to fetch the syncs anew. A list that lost more than half of them is set aside until it is accepted with"
        " `rally-pipeline signalsmith refresh --accept-shrink`.",
        metadata=_loaded_metadata(loaded, plans),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=2 * STALE_AFTER, warn_window=STALE_AFTER),
        check_specs=[
            dg.AssetCheckSpec(
                USABLE_CHECK, asset=list(names.CATALOG_KEY), description="Every row of the list is a sync."
            ),
            dg.AssetCheckSpec(
                SCHEDULED_CHECK,
                asset=list(names.CATALOG_KEY),
                description="Every active sync with a cron has a schedule that fires.",
            ),
        ],
    )
    def catalog(
        context: dg.AssetExecutionContext, signalsmith: SignalSmithResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with clear_failures(), signalsmith.refresh(warehouse) as refresh:
            result = refresh.refresh()
        for line in result.lines():
            context.log.info(line)
        reload = "nothing changed"
        if result.changes.any or loaded.problem:
            reload = request_reload(settings, _location_name(context))
        return dg.MaterializeResult(
            metadata={
                **_result_metadata(result, warehouse.db_schema),
                "signalsmith/reload": dg.MetadataValue.text(reload),
            },
            check_results=_checks(result),
        )

    return catalog


def _location_name(context: dg.AssetExecutionContext) -> str:
    origin = context.run.remote_job_origin
    return origin.location_name if origin is not None else "rally_pipeline"


def _loaded_metadata(loaded: LoadedCatalog, plans: list[SyncPlan]) -> dict[str, object]:
    """What the location was built from, and which syncs have no schedule that fires."""
    silent = [
        {"sync": label(plan.entry), "reason": plan.schedule.hold or plan.schedule.reason}
        for plan in plans
        if plan.schedule.cron is None or plan.schedule.hold
    ]
    shown: dict[str, object] = {
        "signalsmith/syncs": len(plans),
        "signalsmith/timezone": dg.MetadataValue.text(
            f"{loaded.catalog.timezone or 'unknown'} ({loaded.catalog.timezone_source or 'no catalog'})"
        ),
        **shared_metadata.instant("signalsmith/fetched_at", loaded.catalog.fetched),
        **metadata.table("signalsmith/without_schedule", silent),
        **metadata.table("signalsmith/skipped", _skipped(loaded)),
    }
    if loaded.problem:
        shown["signalsmith/problem"] = dg.MetadataValue.text(loaded.problem)
    return shown


def _skipped(loaded: LoadedCatalog) -> list[dict[str, str]]:
    return [{"row": skipped.name, "reason": skipped.reason} for skipped in loaded.catalog.skipped]


def _result_metadata(result: "RefreshResult", schema: str | None) -> dict[str, Any]:
    from rally_pipeline.signalsmith import tables

    changes = result.changes
    lists = {
        "added": changes.added,
        "changed": changes.changed,
        "gone": changes.gone,
        "returned": changes.returned,
        "removed": changes.removed,
    }
    changed = [{"what": kind, "sync": name} for kind, found in lists.items() for name in found]
    return {
        **shared_metadata.row_count(len(result.catalog.entries)),
        **shared_metadata.table(tables.syncs, schema=schema),
        **shared_metadata.numbers("signalsmith", result.counts()),
        **shared_metadata.instant("signalsmith/fetched_at", result.catalog.fetched),
        "signalsmith/timezone": dg.MetadataValue.text(
            f"{result.catalog.timezone} ({result.catalog.timezone_source})"
        ),
        **metadata.table("signalsmith/changes", changed),
        **metadata.table(
            "signalsmith/without_schedule",
            ({"sync": name, "reason": reason} for name, reason in result.unscheduled),
        ),
        **metadata.table(
            "signalsmith/skipped",
            ({"row": skipped.name, "reason": skipped.reason} for skipped in result.catalog.skipped),
        ),
        **metadata.table(
            "signalsmith/remarks", ({"sync": name, "remark": text} for name, text in result.warnings)
        ),
    }


def _checks(result: "RefreshResult") -> list[dg.AssetCheckResult]:
    refused = result.refused_crons
    return [
        dg.AssetCheckResult(
            check_name=USABLE_CHECK,
            passed=not result.catalog.skipped,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"skipped": len(result.catalog.skipped)},
        ),
        dg.AssetCheckResult(
            check_name=SCHEDULED_CHECK,
            passed=not refused,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(f"{name}: {reason}" for name, reason in refused[:5]) or None,
            metadata={"without_schedule": len(refused)},
        ),
    ]
