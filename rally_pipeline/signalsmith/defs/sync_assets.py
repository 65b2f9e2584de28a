"""One asset and one job per sync. Materialising it means: its run of this tick, or of this request, has ended well.

The objects are built without decorators, because a workspace may have a thousand syncs: reading the signature of the
same function a thousand times would take longer than everything else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from rally_pipeline.orchestration import metadata as shared_metadata
from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.failures import clear_failures
from rally_pipeline.signalsmith.catalog import Catalog, Entry
from rally_pipeline.signalsmith.defs import metadata, names
from rally_pipeline.signalsmith.naming import tag_value
from rally_pipeline.signalsmith.options import SyncOptions
from rally_pipeline.signalsmith.schedules import Deadline, SchedulePlan, deadline, remote_cron

_RETRY_NUMBER_TAG = "dagster/retry_number"
_RUNTIME_MARGIN_SECONDS = 1800
_OUTPUTS = {
    "result": dg.Out(dg.Nothing, is_required=False),
    names.ROWS_CHECK: dg.Out(dg.Nothing, is_required=False),
}
_RESOURCES = frozenset({"signalsmith", "warehouse"})


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """Everything that the definitions of one sync are made of."""

    catalog: Catalog
    entry: Entry
    options: SyncOptions
    schedule: SchedulePlan


def sync_asset(plan: SyncPlan) -> dg.AssetsDefinition:
    """The asset `signalsmith/<slug>`."""
    entry, key = plan.entry, dg.AssetKey(list(names.sync_key(plan.entry)))
    upstream = {
        "__".join(_plain(part) for part in dep.path): dep
        for dep in metadata.upstream_keys(entry, plan.options)
    }
    step = dg.OpDefinition(
        compute_fn=_compute_of(plan),
        name=names.op_name(entry),
        ins={name: dg.In(dg.Nothing) for name in upstream},
        outs=_OUTPUTS,
        required_resource_keys=set(_RESOURCES),
    )
    spec = dg.AssetSpec(
        key,
        deps=list(upstream.values()),
        group_name=names.GROUP,
        kinds={"signalsmith"},
        description=_describe(plan),
        metadata=metadata.sync_metadata(plan.catalog, entry, plan.options, plan.schedule),
        tags={names.SYNC_TAG: tag_value(entry.id)},
        freshness_policy=_freshness(plan),
    )
    check = dg.AssetCheckSpec(
        names.ROWS_CHECK, asset=key, description="SignalSmith's destination accepted the rows of the run."
    )
    return dg.AssetsDefinition(
        keys_by_input_name=upstream,
        keys_by_output_name={"result": key},
        node_def=step,
        specs=[spec],
        check_specs_by_output_name={names.ROWS_CHECK: check},
    )


def sync_job(plan: SyncPlan) -> Any:
    """The job `signalsmith_<slug>`: one run of it at a time, ended some time after the sync's own deadline."""
    seconds = 60 * plan.options.deadline_minutes + plan.options.grace_seconds + _RUNTIME_MARGIN_SECONDS
    return dg.define_asset_job(
        names.job_name(plan.entry),
        selection=dg.AssetSelection.assets(list(names.sync_key(plan.entry))),
        tags={
            **policy.stream_tags(names.stream_name(plan.entry), seconds=seconds),
            names.SYNC_TAG: tag_value(plan.entry.id),
        },
    )


def rows_check(
    plan: SyncPlan, synced: int, failed: int, key: dg.AssetKey | None = None
) -> dg.AssetCheckResult:
    """A completed run may have failed rows: more than the options allow is a warning or an error."""
    share = failed / (synced + failed) if synced + failed else 0.0
    serious = share > plan.options.fail_above_share
    return dg.AssetCheckResult(
        check_name=names.ROWS_CHECK,
        asset_key=key,
        passed=failed <= plan.options.warn_above_rows and not serious,
        severity=dg.AssetCheckSeverity.ERROR if serious else dg.AssetCheckSeverity.WARN,
        description=f"{failed} of {synced + failed} rows failed; SignalSmith shows them one by one"
        if failed
        else None,
        metadata={
            "rows_failed": failed,
            "rows_synced": synced,
            "failed_share": share,
            "warn_above_rows": plan.options.warn_above_rows,
            "fail_above_share": plan.options.fail_above_share,
        },
    )


def request_key(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[str, datetime | None]:
    """What a Dagster run asks for: its tick, or itself.

    An automatic retry asks for the same as the run that it replaces. A re-execution by a person asks for a new run:
    that is why they clicked.
    """
    first = run
    while first.parent_run_id is not None and _RETRY_NUMBER_TAG in first.tags:
        parent = instance.get_run_by_id(first.parent_run_id)
        if parent is None:
            break
        first = parent
    tick = first.tags.get(names.TICK_TAG)
    if tick is not None and first.parent_run_id is None:
        return f"tick:{tick}", datetime.fromisoformat(tick)
    return f"run:{first.run_id}", None


def _compute_of(plan: SyncPlan) -> Any:
    def follow_run(
        context: dg.AssetExecutionContext, _inputs: Mapping[str, object]
    ) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
        yield from _materialize(context, plan)

    return follow_run


def _materialize(context: dg.AssetExecutionContext, plan: SyncPlan) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    from rally_pipeline.signalsmith.errors import RunNotSucceeded
    from rally_pipeline.signalsmith.run_request import RunPolicy, RunRequest

    key, tick = request_key(context.instance, context.run)
    not_before = context.run.tags.get(names.NOT_BEFORE_TAG)
    request = RunRequest(
        plan.entry.id,
        key,
        tick=tick,
        zone=plan.schedule.zone or "UTC",
        cron=plan.schedule.cron.original if plan.schedule.cron is not None else "",
        not_before=datetime.fromisoformat(not_before) if not_before else None,
        dagster_run_id=context.run.run_id,
    )
    signalsmith, warehouse = context.resources.signalsmith, context.resources.warehouse
    with clear_failures(), signalsmith.runner(warehouse, context.log.info) as runner:
        try:
            outcome = runner.run(request, RunPolicy.of(plan.options))
        except RunNotSucceeded as error:
            shown = metadata.run_metadata(plan.catalog, plan.entry, error.run, "")
            raise dg.Failure(str(error), metadata=shown, allow_retries=False) from error
    context.instance.add_run_tags(context.run.run_id, {names.REMOTE_RUN_TAG: outcome.run.id})
    spent = shared_metadata.numbers("signalsmith", outcome.counts())
    yield dg.MaterializeResult(
        metadata={
            **metadata.run_metadata(plan.catalog, plan.entry, outcome.run, outcome.origin),
            **spent,
            **metadata.column_lineage(plan.entry),
        },
        tags={names.REMOTE_RUN_TAG: tag_value(outcome.run.id)},
        check_results=[rows_check(plan, outcome.run.rows_synced, outcome.run.rows_failed)],
    )


def _freshness(plan: SyncPlan) -> dg.FreshnessPolicy | None:
    """Late when the cron says so: the one that Dagster uses, else the one that SignalSmith runs by itself."""
    cron = plan.schedule.cron if not plan.schedule.hold else None
    cron = cron or remote_cron(plan.entry)
    due: Deadline | None = deadline(cron.cadence) if cron is not None else None
    return None if due is None else dg.FreshnessPolicy.time_window(fail_window=due.fail, warn_window=due.warn)


def _describe(plan: SyncPlan) -> str:
    """Plain words of ours; the remote's texts are in the metadata, where they cannot draw links."""
    if plan.entry.is_gone:
        return "A sync that SignalSmith does not list any more; kept for a while in case it returns."
    how = {
        "attach": "Follows the run that SignalSmith starts for a tick, and triggers one only where there is none.",
        "drive": "Dagster alone triggers it.",
        "observe": "SignalSmith alone triggers it; Dagster only watches.",
    }
    return f"A sync in SignalSmith. {how[plan.options.ownership.value]} Name, link and mapping are in the metadata."


def _plain(text: str) -> str:
    return "".join(char if char.isalnum() and char.isascii() else "_" for char in text)
