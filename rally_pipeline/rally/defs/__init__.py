"""Rally in Dagster: what is loaded when `RALLY_API_URL` and `RALLY_API_KEY` are set. Loading touches no network."""

import dagster as dg

from rally_pipeline.rally.defs.assets import extract_asset, feed_asset, mirror_asset
from rally_pipeline.rally.defs.jobs import FULL_EXTRACT_JOB, INCREMENTAL_JOB, reconcile_job
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.defs.schedules import reconcile_schedule
from rally_pipeline.rally.defs.triggers import changes_sensor, feed_close_schedule
from rally_pipeline.rally.entities import Entity
from rally_pipeline.settings import Settings

__all__ = ["RallyResource", "build_defs"]


def build_defs(settings: Settings) -> dg.Definitions:
    """Assets, jobs, sensor and schedules of Rally, and the resource `rally`; `warehouse` is shared."""
    return dg.Definitions(
        assets=[
            *(extract_asset(entity, settings) for entity in Entity),
            feed_asset(settings),
            *(mirror_asset(entity, settings) for entity in Entity),
        ],
        jobs=[FULL_EXTRACT_JOB, INCREMENTAL_JOB, reconcile_job],
        sensors=[changes_sensor(settings)],
        schedules=[feed_close_schedule(settings), reconcile_schedule(settings)],
        resources={"rally": RallyResource.of(settings)},
    )
