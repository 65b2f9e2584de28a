"""The schedule of the comparison. What closes the feed's windows stands with the sensor, in `triggers`."""

from datetime import UTC

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.diagnosis import diagnose
from rally_pipeline.orchestration.failures import failure
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.runs import describe, run_under_way
from rally_pipeline.rally.defs.jobs import reconcile_job
from rally_pipeline.rally.defs.names import RECONCILE, RECONCILE_SCHEDULE
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.entities import Entity
from rally_pipeline.settings import Settings

DAILY = "0 3 * * *"


def reconcile_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Once a day, at an hour when few people change anything."""

    @dg.schedule(
        name=RECONCILE_SCHEDULE,
        job=reconcile_job,
        cron_schedule=DAILY,
        execution_timezone="UTC",
        default_status=policy.schedule_status(settings),
        description="Compares Rally with the warehouse value by value, once a day at 03:00 UTC, and heals what differs."
        " Skipped while a comparison is under way, and before the first full extract.",
    )
    def reconcile_daily(
        context: dg.ScheduleEvaluationContext, rally: RallyResource, warehouse: WarehouseResource
    ) -> dg.SkipReason | dg.RunRequest:
        busy = run_under_way(context.instance, RECONCILE)
        if busy is not None:
            return dg.SkipReason(f"{describe(busy)}; the next comparison is tomorrow's")
        try:
            with rally.mirror(warehouse) as mirror:
                filled = [entity for entity in Entity if mirror.is_filled(entity)]
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                raise
            raise failure(error, diagnosis) from error
        if len(filled) < len(Entity):
            return dg.SkipReason("there is nothing to compare before every entity has been read in full once")
        at = context.scheduled_execution_time.astimezone(UTC)
        return dg.RunRequest(run_key=at.isoformat())

    return reconcile_daily
