"""The job that drains, and the schedule that starts it."""

import logging
from datetime import UTC, datetime
from itertools import islice

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.runs import describe, run_under_way
from rally_pipeline.sell.defs.assets import QUEUE, table_key
from rally_pipeline.sell.entities import Entity
from rally_pipeline.settings import Settings, SettingsError

logger = logging.getLogger(__name__)
DRAIN = "sell_drain"
SCHEDULE = "sell_drain_schedule"

DRAIN_JOB = dg.define_asset_job(
    DRAIN,
    selection=dg.AssetSelection.assets(
        dg.AssetKey(list(QUEUE)), *(dg.AssetKey(list(table_key(entity))) for entity in Entity)
    ),
    description="Drains the Sync queue, then settles what it left open. One drain at a time.",
    tags=policy.stream_tags(DRAIN, seconds=policy.INCREMENTAL_SECONDS),
)


def check_cron(expression: str) -> str:
    """The expression, if it will ever fire.

    Raises:
        SettingsError: it is not a cron expression, or names a day that no month has (the list of schedules would
            then fail in the UI).
    """
    from dagster._utils.schedules import cron_string_iterator, is_valid_cron_schedule

    example = "use five fields such as */15 * * * *"
    if "R" in expression.upper().split() or not is_valid_cron_schedule(expression):
        raise SettingsError(f"SELL_DRAIN_CRON: not a cron expression; {example}")
    try:
        ticks = list(islice(cron_string_iterator(datetime.now(UTC).timestamp(), expression, "UTC"), 2))
    except Exception:  # noqa: BLE001 (the vendored parser has no error of its own)
        ticks = []
    if len(ticks) < 2:
        raise SettingsError(f"SELL_DRAIN_CRON: this never fires; {example}")
    return expression


def drain_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """`SELL_DRAIN_CRON`, in UTC. A tick during a drain is skipped: sessions are scarce and the next tick comes.

    A cron that cannot be used stops the schedule alone. It stays in its place and says why at every tick: Dagster
    forgets the switch of a schedule that is missing, and the drain would stay off when the cron is corrected.
    """
    cron, problem = settings.sell_drain_cron, ""
    try:
        check_cron(cron)
    except SettingsError as error:
        cron, problem = Settings.model_fields["sell_drain_cron"].default, str(error)
        logger.warning("%s; until then the schedule starts no drain", problem)

    @dg.schedule(
        name=SCHEDULE,
        job=DRAIN_JOB,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=policy.schedule_status(settings),
        description="Drains the Sell queue. Missed ticks need no catch-up: one drain brings everything pending.",
    )
    def sell_drain_schedule(context: dg.ScheduleEvaluationContext) -> dg.SkipReason | dg.RunRequest:
        forbidden = policy.read_only_skip(settings, "the Sell queue is not opened")
        if forbidden is not None:
            return forbidden
        if problem:
            return dg.SkipReason(problem)
        busy = run_under_way(context.instance, DRAIN)
        if busy is not None:
            return dg.SkipReason(f"{describe(busy)}; the next tick drains what is new")
        return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat())

    return sell_drain_schedule
