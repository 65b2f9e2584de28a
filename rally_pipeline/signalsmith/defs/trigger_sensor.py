"""`sync_trigger_sensor`: a sync runs when its upstream tables have changed.

Dagster's materialisations say when to look; the table itself says whether rows changed, since a run that wrote
nothing is materialised too. One run per sync at a time; a burst of changes becomes one run.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.diagnosis import diagnose
from rally_pipeline.orchestration.failures import failure
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.runs import describe, run_under_way
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith.defs import names
from rally_pipeline.signalsmith.defs.sync_assets import SyncPlan
from rally_pipeline.signalsmith.lineage import KNOWN_TABLES
from rally_pipeline.signalsmith.options import Ownership
from rally_pipeline.signalsmith.triggers import Position, Sight, Watch, rows_changed

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Warehouse

INTERVAL_SECONDS = 30
MOST_EVENTS = 100
_TABLES: dict[tuple[str, ...], str] = {key: table for table, key in KNOWN_TABLES.items()}
_NOTHING = Sight(0, datetime.fromtimestamp(0, UTC))


def trigger_sensor(settings: Settings, built: list[tuple[SyncPlan, Any]]) -> dg.SensorDefinition:
    """The sensor over all syncs that declare what feeds them."""
    watched = {plan.entry.id: plan for plan, _ in built if plan.options.upstream and not why_not(plan)}
    jobs = [job for plan, job in built if plan.entry.id in watched]
    held = [
        f"{plan.entry.slug}: {why_not(plan)}" for plan, _ in built if plan.options.upstream and why_not(plan)
    ]

    @dg.sensor(
        name=names.TRIGGER_SENSOR,
        jobs=jobs or None,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=policy.sensor_status(settings),
        description="Runs a sync when rows of its upstream tables changed (`upstream` in its options), after a pause,"
        " one run at a time.",
    )
    def sync_trigger_sensor(
        context: dg.SensorEvaluationContext, warehouse: WarehouseResource
    ) -> dg.SensorResult | dg.SkipReason:
        forbidden = policy.read_only_skip(settings, "no sync is triggered")
        if forbidden is not None:
            return forbidden
        if not watched:
            return dg.SkipReason(
                "; ".join(["no sync to watch: declare `upstream` in its options", *held])[:1000]
            )
        position, now = Position.read(context.cursor), datetime.now(UTC)
        try:
            with warehouse.open() as opened:
                sights = look(context.instance, opened, watched, position)
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None or not diagnosis.repeatable:
                raise failure(error, diagnosis) if diagnosis is not None else error from error
            return dg.SkipReason(f"{diagnosis.line}; tried again at the next tick")
        requests, waiting, watches = _demand(context.instance, watched, position, sights, now)
        after = Position(watches).text()
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=after)
        reason = "; ".join([*waiting, *held]) or "no upstream rows have changed"
        return dg.SensorResult(skip_reason=reason[:1000], cursor=after)

    return sync_trigger_sensor


def why_not(plan: SyncPlan) -> str:
    """Why changes upstream must not start this sync; "" where they may."""
    if plan.options.ownership is Ownership.OBSERVE:
        return "observed only"
    if plan.schedule.hold:
        return plan.schedule.hold
    allowed = ("active",) if plan.options.ownership is Ownership.ATTACH else ("active", "paused")
    return (
        ""
        if plan.entry.status in allowed
        else f"its status in SignalSmith is {plan.entry.status or 'unknown'}"
    )


def look(
    instance: dg.DagsterInstance,
    warehouse: "Warehouse",
    watched: Mapping[str, SyncPlan],
    position: Position,
) -> dict[tuple[str, ...], Sight]:
    """Every upstream of every watched sync, each looked at once."""
    upstream = {key for plan in watched.values() for key in plan.options.upstream}
    oldest = {
        key: min(
            (
                watch.events[name]
                for watch in position.watches.values()
                if (name := "/".join(key)) in watch.events
            ),
            default=0,
        )
        for key in upstream
    }
    return {key: _sight(instance, warehouse, key, oldest[key]) for key in sorted(upstream)}


def _sight(instance: dg.DagsterInstance, warehouse: "Warehouse", key: tuple[str, ...], seen: int) -> Sight:
    from rally_pipeline.signalsmith.contents import content_mark

    criteria = dg.AssetRecordsFilter(asset_key=dg.AssetKey(list(key)), after_storage_id=seen or None)
    records = instance.fetch_materializations(criteria, limit=MOST_EVENTS if seen else 1).records
    if not records:
        return Sight(seen, _NOTHING.at) if seen else _NOTHING
    newest = max(records, key=lambda record: record.storage_id)
    table = _TABLES.get(key)
    return Sight(
        newest.storage_id,
        datetime.fromtimestamp(newest.timestamp, UTC),
        content_mark(warehouse, table) if table else "",
        any(rows_changed(_numbers(record)) for record in records),
    )


def _numbers(record: dg.EventLogRecord) -> dict[str, float]:
    event = record.event_log_entry.asset_materialization
    found = {} if event is None else event.metadata
    return {key: float(item.value) for key, item in found.items() if isinstance(item.value, int | float)}


def _demand(
    instance: dg.DagsterInstance,
    watched: Mapping[str, SyncPlan],
    position: Position,
    sights: Mapping[tuple[str, ...], Sight],
    now: datetime,
) -> tuple[list[dg.RunRequest], list[str], dict[str, Watch]]:
    """Runs to ask for, what is waiting and why, and the watches after this tick."""
    requests, waiting, watches = [], [], {}
    for sync_id, plan in watched.items():
        mine = {"/".join(key): sights[key] for key in plan.options.upstream}
        known = position.watches.get(sync_id)
        watch = known.see(mine) if known is not None else Watch.begin(mine, _last_run(instance, plan))
        pause = plan.options.debounce_seconds
        if watch.due(now, pause):
            busy = run_under_way(instance, names.job_name(plan.entry))
            if busy is None:
                requests.append(_request(plan, watch))
                watch = watch.started()
            else:
                waiting.append(f"{plan.entry.slug}: {describe(busy)}, another run follows it")
        elif watch.is_pending:
            waiting.append(
                f"{plan.entry.slug}: waiting until {watch.waits_until(pause):%H:%M:%S} UTC for more changes"
            )
        watches[sync_id] = watch
    return requests, waiting, watches


def _last_run(instance: dg.DagsterInstance, plan: SyncPlan) -> datetime | None:
    """When the sync was last materialised."""
    event = instance.get_latest_materialization_event(dg.AssetKey(list(names.sync_key(plan.entry))))
    return None if event is None else datetime.fromtimestamp(event.timestamp, UTC)


def _request(plan: SyncPlan, watch: Watch) -> dg.RunRequest:
    """The key holds the change, so that a tick that Dagster repeats asks for the same run."""
    events = ",".join(f"{name}={event}" for name, event in sorted(watch.events.items()))
    return dg.RunRequest(
        job_name=names.job_name(plan.entry),
        run_key=f"{plan.entry.id} after {events}",
        tags={names.NOT_BEFORE_TAG: watch.changed_at.isoformat()},
    )
