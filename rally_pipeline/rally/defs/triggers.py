"""What starts runs: the sensor that polls the feed, and the schedule that closes windows.

What has been read is known by the warehouse alone. The sensor's cursor only paces repeated attempts, so a lost or
foreign one costs at most one early repetition.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.cursor import RequestCursor
from rally_pipeline.orchestration.diagnosis import diagnose
from rally_pipeline.orchestration.failures import failure
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.runs import describe, run_under_way
from rally_pipeline.orchestration.windows import contiguous_ranges, hour_of
from rally_pipeline.rally.defs.assets import FEED, extract_key, mirror_key
from rally_pipeline.rally.defs.jobs import FULL_EXTRACT_JOB, INCREMENTAL_JOB
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.entities import Entity
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import RallyMirror
    from rally_pipeline.rally.results import MirrorStatus

SENSOR = "rally_changes_sensor"
SCHEDULE = "rally_feed_close"
FULL_EXTRACT = "rally_full_extract"
INCREMENTAL = "rally_incremental"
MIRRORS = [dg.AssetKey(list(mirror_key(entity))) for entity in Entity]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a tick found: runs to request under the name `request`, or none and why."""

    reason: str
    request: str = ""
    runs: tuple[dg.RunRequest, ...] = ()
    latest: datetime | None = field(default=None)


def changes_sensor(settings: Settings) -> dg.SensorDefinition:
    """Polls the feed with one request a tick and asks for just the windows that hold new entries."""

    @dg.sensor(
        name=SENSOR,
        jobs=[INCREMENTAL_JOB, FULL_EXTRACT_JOB],
        minimum_interval_seconds=settings.rally_poll_seconds,
        default_status=policy.sensor_status(settings),
        description="Polls Rally's change feed (one request a tick) and requests the hours that changed. Before"
        " anything else it requests the first full extract, or a new one where the feed no longer reaches back.",
    )
    def rally_changes_sensor(
        context: dg.SensorEvaluationContext, rally: RallyResource, warehouse: WarehouseResource
    ) -> dg.SensorResult:
        cursor = RequestCursor.read(context.cursor)
        now = datetime.now(UTC)
        busy = run_under_way(context.instance, INCREMENTAL)
        if busy is not None:
            return _skipped(f"{describe(busy)}; what is new now is seen at a later tick", cursor)
        extracting = run_under_way(context.instance, FULL_EXTRACT)
        try:
            with rally.mirror(warehouse) as mirror:
                demand = find_demand(mirror, settings.rally_feed_start, extracting)
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                raise
            if diagnosis.repeatable:
                return _skipped(f"{diagnosis.line}; tried again at the next tick", cursor)
            raise failure(error, diagnosis) from error
        cursor = cursor.seen(demand.latest)
        if not demand.runs:
            return _skipped(demand.reason, cursor)
        pause = cursor.pause_before(demand.request, now)
        if pause is not None:
            reason = f"{demand.reason}: requested already, not achieved; repeated after {pause:%H:%M:%S} UTC"
            return _skipped(reason, cursor)
        context.log.info(demand.reason)
        asked = cursor.asked(demand.request, now, interval_seconds=settings.rally_poll_seconds)
        return dg.SensorResult(run_requests=list(demand.runs), cursor=asked.text())

    return rally_changes_sensor


def find_demand(mirror: "RallyMirror", feed_start: datetime, extracting: dg.DagsterRun | None) -> Demand:
    """What should run next. Costs no request while a full extract is due, exactly one otherwise."""
    status = mirror.status()
    due = entities_to_extract(mirror)
    if due and extracting is not None:
        return Demand(f"{describe(extracting)}; the feed is read when it has fixed its base")
    if due:
        names = ", ".join(due)
        selection = [dg.AssetKey(list(key(entity))) for entity in due for key in (extract_key, mirror_key)]
        run = dg.RunRequest(job_name=FULL_EXTRACT, asset_selection=selection)
        return Demand(f"a full extract of {names} is due", f"extract {names}", (run,))
    poll = mirror.poll()
    # While a full extract is at work its own last steps settle every mark.
    settled = [] if extracting is not None else MIRRORS
    ranges = list(contiguous_ranges(poll.windows, not_before=feed_start))
    if not ranges:
        return _demand_of_marks(status, settled, poll.latest)
    if poll.truncated:
        ranges = [type(ranges[0])(ranges[0].first, max(ranges[-1].last, hour_of(datetime.now(UTC))))]
    feed = dg.AssetKey(list(FEED))
    runs = tuple(
        dg.RunRequest(
            job_name=INCREMENTAL,
            tags=found.tags,
            asset_selection=[feed, *(settled if found is ranges[-1] else [])],
        )
        for found in ranges
    )
    named = ", ".join(map(str, ranges))
    return Demand(
        f"{poll.entries} new entries in {named}", f"read {named} up to {poll.latest}", runs, poll.latest
    )


def feed_close_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Hourly, as soon as a read can close the hour that has just ended."""
    # An hour is closed by a read that begins at least the overlap after its end.
    minute = min(59, settings.rally_feed_overlap_seconds // 60 + 1)

    @dg.schedule(
        name=SCHEDULE,
        job=INCREMENTAL_JOB,
        cron_schedule=f"{minute} * * * *",
        execution_timezone="UTC",
        default_status=policy.schedule_status(settings),
        description="Re-reads the windows that have ended and are not closed, so that a quiet hour is recorded as"
        " read, not as missing. Missed ticks need no catch-up: the next one asks for everything that is open.",
    )
    def rally_feed_close(
        context: dg.ScheduleEvaluationContext, rally: RallyResource, warehouse: WarehouseResource
    ) -> dg.SkipReason | list[dg.RunRequest]:
        at = context.scheduled_execution_time
        busy = run_under_way(context.instance, INCREMENTAL)
        if busy is not None:
            return dg.SkipReason(f"{describe(busy)}; the next tick asks for what is still open")
        try:
            with rally.mirror(warehouse) as mirror:
                open_windows = mirror.windows_to_close(at)
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                raise
            raise failure(error, diagnosis) from error
        ranges = list(contiguous_ranges(open_windows, not_before=settings.rally_feed_start))
        if not ranges:
            return dg.SkipReason("every window that has ended is closed")
        return [
            dg.RunRequest(
                run_key=f"{at.isoformat()} {found}",
                tags=found.tags,
                asset_selection=_close_selection(found, ranges[-1]),
            )
            for found in ranges
        ]

    return rally_feed_close


def _close_selection(found: object, last: object) -> list[dg.AssetKey]:
    feed = dg.AssetKey(list(FEED))
    return [feed, *MIRRORS] if found is last else [feed]


def _skipped(reason: str, cursor: RequestCursor) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=cursor.text())


def entities_to_extract(mirror: "RallyMirror") -> list[Entity]:
    """Entities without a finished full pass, and those whose feed no longer reaches back far enough."""
    return [entity for entity in Entity if mirror.snapshot_required(entity) is not None]


def _demand_of_marks(status: "MirrorStatus", settled: list[dg.AssetKey], latest: datetime | None) -> Demand:
    """Marks that an earlier run could not settle are asked for again although the feed is quiet."""
    open_marks = sum(table.open_marks for table in status.tables)
    quiet = f"no change since {latest:%Y-%m-%d %H:%M:%S} UTC" if latest else "no change since the last read"
    if not open_marks or not settled:
        return Demand(f"{quiet} (1 request)", latest=latest)
    waiting = {table.table for table in status.tables if table.open_marks}
    selection = [dg.AssetKey(list(mirror_key(entity))) for entity in Entity if entity.table_name in waiting]
    run = dg.RunRequest(job_name=INCREMENTAL, asset_selection=selection)
    return Demand(f"{quiet}, but {open_marks} marks are open", f"settle {sorted(waiting)}", (run,), latest)
