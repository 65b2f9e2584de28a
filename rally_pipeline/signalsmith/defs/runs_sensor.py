"""`signalsmith_runs_sensor`: runs that were started elsewhere become materialisations, each exactly once.

Dagster stores a tick's events before its cursor, so a crash in between repeats the tick. The event log itself is
therefore the proof: a run is shown when an event with its id is there, and only then its outbox row is closed.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.diagnosis import diagnose
from rally_pipeline.orchestration.failures import failure
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.runs import UNDER_WAY
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith.defs import metadata, names
from rally_pipeline.signalsmith.defs.resource import SignalSmithResource
from rally_pipeline.signalsmith.defs.sync_assets import SyncPlan, rows_check
from rally_pipeline.signalsmith.naming import tag_value

if TYPE_CHECKING:
    from rally_pipeline.signalsmith.records import Run
    from rally_pipeline.signalsmith.run_history import RunHistory

INTERVAL_SECONDS = 60
BUDGET_SECONDS = 30.0
"""Of the 60 that Dagster gives a tick."""

MOST_REPORTED = 100
_LOOK_BACK = timedelta(hours=1)

Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation


def runs_sensor(settings: Settings, plans: list[SyncPlan]) -> dg.SensorDefinition:
    """The sensor; one list call a tick, whatever the number of syncs."""
    by_id = {plan.entry.id: plan for plan in plans if not plan.entry.is_gone}

    @dg.sensor(
        name=names.RUNS_SENSOR,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=policy.sensor_status(settings),
        description="Shows runs that SignalSmith's schedule or a person there started: completed ones as"
        " materialisations, failed and cancelled ones as observations, each exactly once. One list call a tick.",
    )
    def signalsmith_runs_sensor(
        context: dg.SensorEvaluationContext, signalsmith: SignalSmithResource, warehouse: WarehouseResource
    ) -> dg.SensorResult | dg.SkipReason:
        from rally_pipeline.clock import SystemClock
        from rally_pipeline.signalsmith.arrivals import collect_arrivals

        if not by_id:
            return dg.SkipReason("no syncs are known yet: materialize signalsmith/catalog")
        try:
            with signalsmith.client(tick=True) as client, signalsmith.history(warehouse) as history:
                found = collect_arrivals(
                    client, history, by_id, clock=SystemClock(), budget_seconds=BUDGET_SECONDS
                )
                events = report_runs(context.instance, history, by_id)
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                raise
            if diagnosis.repeatable:
                return dg.SkipReason(f"{diagnosis.line}; tried again at the next tick")
            raise failure(error, diagnosis) from error
        later = f", {found.postponed} left for the next tick" if found.postponed else ""
        if not events:
            return dg.SkipReason(f"nothing ended elsewhere ({1 + found.looks} requests{later})")
        context.log.info(f"{len(events)} events of runs started elsewhere{later}")
        return dg.SensorResult(asset_events=events)

    return signalsmith_runs_sensor


def report_runs(
    instance: dg.DagsterInstance, history: "RunHistory", by_id: dict[str, SyncPlan]
) -> list[Event]:
    """Events for ended runs that Dagster does not show and does not follow; closes what it shows."""
    waiting = history.unreported(MOST_REPORTED)
    followers = history.followers([run.id for run in waiting])
    events: list[Event] = []
    shown: list[Run] = []
    for run in waiting:
        plan = by_id.get(run.sync_id)
        if plan is None or _is_shown(instance, plan, run):
            shown.append(run)
            continue
        follower = instance.get_run_by_id(followers[run.id]) if run.id in followers else None
        if follower is not None and follower.status in UNDER_WAY:
            continue  # it will report the run itself, or fail and leave it to a later tick
        if run.status != "completed" and follower is not None:
            shown.append(run)  # the failed Dagster run shows it
            continue
        events += _events_of(plan, run)
    history.mark_reported(shown)
    return events


def _is_shown(instance: dg.DagsterInstance, plan: SyncPlan, run: "Run") -> bool:
    """Whether the event log has an event with this run's id."""
    key, tag = dg.AssetKey(list(names.sync_key(plan.entry))), tag_value(run.id)
    after = (run.created_at - _LOOK_BACK).timestamp() if run.created_at is not None else None
    criteria = dg.AssetRecordsFilter(asset_key=key, after_timestamp=after)
    completed = run.status == "completed"
    fetch = instance.fetch_materializations if completed else instance.fetch_observations
    cursor = None
    while True:
        page = fetch(criteria, limit=200, cursor=cursor)
        if any(_tag_of(record) == tag for record in page.records):
            return True
        if not page.has_more:
            return False
        cursor = page.cursor


def _tag_of(record: dg.EventLogRecord) -> str | None:
    entry = record.event_log_entry
    event = entry.asset_materialization or entry.asset_observation
    return event.tags.get(names.REMOTE_RUN_TAG) if event is not None and event.tags else None


def _events_of(plan: SyncPlan, run: "Run") -> Iterable[Event]:
    from rally_pipeline.signalsmith.run_request import ELSEWHERE

    key = dg.AssetKey(list(names.sync_key(plan.entry)))
    tags = {names.REMOTE_RUN_TAG: tag_value(run.id)}
    shown = metadata.run_metadata(plan.catalog, plan.entry, run, ELSEWHERE)
    by = {"signalsmith/triggered_by": dg.MetadataValue.text(run.triggered_by or "SignalSmith's schedule")}
    if run.status != "completed":
        reason = {"signalsmith/error": dg.MetadataValue.text(run.error_message or run.status)}
        yield dg.AssetObservation(
            key,
            description=f"A run in SignalSmith {run.status}",
            metadata={**shown, **by, **reason},
            tags=tags,
        )
        return
    yield dg.AssetMaterialization(
        key,
        description="A run that was started in SignalSmith",
        metadata={**shown, **by, **metadata.column_lineage(plan.entry)},
        tags=tags,
    )
    check = rows_check(plan, run.rows_synced, run.rows_failed, key)
    yield dg.AssetCheckEvaluation(
        check_name=names.ROWS_CHECK,
        asset_key=key,
        passed=check.passed,
        metadata=check.metadata,
        severity=check.severity,
        description=check.description,
    )
