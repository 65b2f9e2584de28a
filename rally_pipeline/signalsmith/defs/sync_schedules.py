"""The schedule of a sync: its own cron, in its own zone, switched on and off under a name that never changes."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.runs import describe, run_under_way
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith.defs import names
from rally_pipeline.signalsmith.defs.sync_assets import SyncPlan
from rally_pipeline.signalsmith.options import Ownership


def sync_schedule(plan: SyncPlan, job: Any, settings: Settings) -> dg.ScheduleDefinition | None:
    """None where the sync has no cron that Dagster should follow.

    Raises:
        DagsterError: Dagster does not take the expression after all; the caller reports it and goes on.
    """
    cron = plan.schedule.cron
    if cron is None:
        return None
    expressions = list(cron.expressions)
    return dg.ScheduleDefinition(
        name=names.schedule_name(plan.entry),
        job=job,
        cron_schedule=expressions[0] if len(expressions) == 1 else expressions,
        execution_timezone=plan.schedule.zone,
        execution_fn=_evaluation_of(plan, settings),
        default_status=policy.schedule_status(settings),
        description=_describe(plan),
        metadata={
            "signalsmith/sync_id": dg.MetadataValue.text(plan.entry.id),
            "signalsmith/name": dg.MetadataValue.text(plan.entry.name),
            "signalsmith/schedule": dg.MetadataValue.text(cron.original),
            "signalsmith/timezone": dg.MetadataValue.text(
                f"{plan.schedule.zone} ({plan.catalog.timezone_source})"
            ),
            "signalsmith/ownership": dg.MetadataValue.text(plan.options.ownership.value),
            **(
                {"signalsmith/remarks": dg.MetadataValue.text("; ".join(cron.warnings))}
                if cron.warnings
                else {}
            ),
            **(
                {"signalsmith/skips_because": dg.MetadataValue.text(plan.schedule.hold)}
                if plan.schedule.hold
                else {}
            ),
        },
    )


def tick_request(
    plan: SyncPlan, context: dg.ScheduleEvaluationContext, settings: Settings
) -> dg.RunRequest | dg.SkipReason:
    """One run for the tick, unless the sync must not run now or its last run is still under way."""
    forbidden = policy.read_only_skip(settings, "no sync is triggered")
    if forbidden is not None and plan.options.ownership is not Ownership.OBSERVE:
        return forbidden
    if plan.schedule.hold:
        return dg.SkipReason(plan.schedule.hold)
    busy = run_under_way(context.instance, names.job_name(plan.entry))
    if busy is not None:
        return dg.SkipReason(f"{describe(busy)}; runs of one sync never overlap")
    tick = context.scheduled_execution_time.isoformat()
    return dg.RunRequest(run_key=f"tick:{tick}", tags={names.TICK_TAG: tick})


def _evaluation_of(plan: SyncPlan, settings: Settings) -> Callable[..., dg.RunRequest | dg.SkipReason]:
    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return tick_request(plan, context, settings)

    return evaluate


def _describe(plan: SyncPlan) -> str:
    if plan.schedule.hold:
        return "Kept so that it does not lose its switch; its ticks are skipped."
    return "Derived from the sync's cron in SignalSmith. A tick attaches to SignalSmith's own run where there is one."
