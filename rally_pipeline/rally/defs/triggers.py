"""What starts runs: the sensor that polls the feed, and the schedule that closes windows.

What has been read is known by the warehouse alone. The sensor's cursor only paces repeated attempts, so a lost or
foreign one costs at most one early repetition.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.cursor import RequestCursor
from rally_pipeline.orchestration.diagnosis import diagnose
from rally_pipeline.orchestration.failures import failure
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.runs import describe, run_under_way
from rally_pipeline.orchestration.windows import WindowRange, contiguous_ranges, hour_of
from rally_pipeline.rally.defs.jobs import FULL_EXTRACT_JOB, INCREMENTAL_JOB
from rally_pipeline.rally.defs.names import (
    FEED,
    FULL_EXTRACT,
    INCREMENTAL,
    SCHEDULE,
    SENSOR,
    extract_key,
    mirror_key,
)
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.defs.unclosed import windows_to_materialize
from rally_pipeline.rally.entities import Entity
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rally_pipeline.rally.mirror import RallyMirror
    from rally_pipeline.rally.results import ChangePoll, RequiredExtract

FEED_ASSET = dg.AssetKey(list(FEED))


@dataclass(frozen=True, slots=True)
class Demand:
    """What a tick found: runs to request under the name `request`, or none and why."""

    reason: str
    request: str = ""
    runs: tuple[dg.RunRequest, ...] = ()
    latest: datetime | None = None


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
            with rally.mirror(warehouse, tick=True) as mirror:
                demand = find_demand(mirror, settings.rally_feed_start, extracting, now)
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


def find_demand(
    mirror: "RallyMirror", feed_start: datetime, extracting: dg.DagsterRun | None, now: datetime
) -> Demand:
    """What should run next. Costs no request while a first full extract is due, one where nothing is new.

    `now` is this machine's time, by which Dagster ends the partitions; it decides nothing else.
    """
    required = mirror.required_extracts()
    if required and extracting is not None:
        return Demand(f"{describe(extracting)}; the feed is polled when every entity has been read once")
    # While a full extract is at work its own last steps settle every mark.
    settling = extracting is None
    if required:
        due, begins = due_extracts(mirror, required)
        return _demand_of_extract(required, due) if due else _wait(mirror, required, begins)
    if hour_of(now) < feed_start:
        return Demand(no_partition(feed_start, now))
    poll = mirror.poll()
    ranges = _ranges_of(poll, feed_start, hour_of(now))
    if ranges:
        named = ", ".join(map(str, ranges))
        runs = tuple(range_requests(ranges, settling=settling))
        news = f"{poll.entries} new entries" if poll.entries else "more than a poll can tell is to be read"
        return Demand(f"{news} in {named}", f"read {named} up to {poll.latest}", runs, poll.latest)
    asked = "1 request" if poll.cost.requests == 1 else f"{poll.cost.requests} requests"
    quiet = f"no change since the last read ({asked})"
    return _demand_of_marks(mirror, quiet) if settling else Demand(quiet)


def due_extracts(
    mirror: "RallyMirror", required: "Sequence[RequiredExtract]"
) -> tuple[list[Entity], datetime | None]:
    """Entities whose full extract may begin now, and when the next of the others may (server time)."""
    now = mirror.server_now() if any(found.since is not None for found in required) else None
    bound = mirror.policy.longest_demand
    # What is dated further ahead than any demand is of before the server's clock was set back.
    later = {
        found.entity: found.since
        for found in required
        if found.since is not None and now is not None and now < found.since <= now + bound
    }
    due = [Entity(found.entity) for found in required if found.entity not in later]
    return due, min(later.values(), default=None)


def no_partition(feed_start: datetime, now: datetime) -> str:
    """Why there is no window to materialise."""
    return (
        f"there is no hour to read: this machine's clock shows {now:%Y-%m-%d %H:%M} UTC, which is before"
        f" RALLY_FEED_START ({feed_start:%Y-%m-%d %H:%M})"
    )


def range_requests(
    ranges: list[WindowRange], *, settling: bool = True, run_key: str | None = None
) -> list[dg.RunRequest]:
    """One run for each range; with `settling` the last one settles every mark as well."""
    mirrors = [dg.AssetKey(list(mirror_key(entity))) for entity in Entity] if settling else []
    return [
        dg.RunRequest(
            job_name=INCREMENTAL,
            run_key=f"{run_key} {found}" if run_key else None,
            tags=found.tags if run_key else found.tags_to_read_on,
            asset_selection=[FEED_ASSET, *(mirrors if found is ranges[-1] else [])],
        )
        for found in ranges
    ]


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
        at = context.scheduled_execution_time.astimezone(UTC)
        busy = run_under_way(context.instance, INCREMENTAL, tags={"dagster/schedule_name": SCHEDULE})
        if busy is not None:
            return dg.SkipReason(f"{describe(busy)}; the next tick asks for what is still open")
        try:
            with rally.mirror(warehouse, tick=True) as mirror:
                # Rally's clock says which hours have ended; it may be hours from this machine's.
                ended = windows_to_materialize(mirror, context.instance, mirror.server_now())
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                raise
            if diagnosis.repeatable:
                return dg.SkipReason(f"{diagnosis.line}; the next tick asks for what is still open")
            raise failure(error, diagnosis) from error
        windows = [start for start in ended if start <= hour_of(datetime.now(UTC))]
        ranges = list(contiguous_ranges(windows, not_before=settings.rally_feed_start))
        if not ranges:
            return dg.SkipReason("every window that has ended is closed")
        # A full extract at work holds its tables, and settles every mark at its end.
        settling = run_under_way(context.instance, FULL_EXTRACT) is None
        return range_requests(ranges, settling=settling, run_key=at.isoformat())

    return rally_feed_close


def _ranges_of(poll: "ChangePoll", feed_start: datetime, newest: datetime) -> list[WindowRange]:
    """The windows with new entries, among those that exist. A full page says nothing of what follows it: everything
    up to the server's running hour is asked for.
    """
    windows = {min(max(window, feed_start), newest) for window in poll.windows}
    ranges = list(contiguous_ranges(windows, not_before=feed_start))
    if ranges and poll.truncated and poll.server_time is not None:
        last = max(ranges[-1].last, min(hour_of(poll.server_time), newest))
        return [WindowRange(ranges[0].first, last)]
    return ranges


def _demand_of_extract(required: "Sequence[RequiredExtract]", due: list[Entity]) -> Demand:
    names = ", ".join(due)
    selection = [dg.AssetKey(list(key(entity))) for entity in due for key in (extract_key, mirror_key)]
    run = dg.RunRequest(job_name=FULL_EXTRACT, asset_selection=selection)
    reasons = dict.fromkeys(found.reason for found in required if found.entity in due)
    return Demand(f"a full extract of {names} is due: {'; '.join(reasons)}", f"extract {names}", (run,))


def _wait(mirror: "RallyMirror", required: "Sequence[RequiredExtract]", begins: datetime | None) -> Demand:
    """The feed stands still until an extract may begin that covers what it cannot show; marks are settled meanwhile."""
    names = ", ".join(found.entity for found in required)
    until = f" after {begins:%H:%M:%S} UTC" if begins is not None else ""
    return _demand_of_marks(
        mirror, f"{required[0].reason}; a full extract of {names} is requested at the first tick{until}"
    )


def _demand_of_marks(mirror: "RallyMirror", quiet: str) -> Demand:
    """Marks that an earlier run could not settle are asked for again although the feed is quiet."""
    from rally_pipeline.rally import marks

    with mirror.warehouse.reading() as transaction:
        open_marks = {entity: marks.count_marks(transaction, entity) for entity in Entity}
    waiting = [entity for entity, count in open_marks.items() if count]
    if not waiting:
        return Demand(quiet)
    selection = [dg.AssetKey(list(mirror_key(entity))) for entity in waiting]
    run = dg.RunRequest(job_name=INCREMENTAL, asset_selection=selection)
    names = ", ".join(waiting)
    return Demand(
        f"{quiet}, but {sum(open_marks.values())} marks of {names} are open", f"settle {names}", (run,)
    )


def _skipped(reason: str, cursor: RequestCursor) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=cursor.text())
