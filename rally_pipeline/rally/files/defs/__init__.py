"""Rally's files in Dagster: imports, one partition per file; exports; the sensor that watches the inbox."""

import dagster as dg

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.defs.exports import EXPORT_JOB, export_asset
from rally_pipeline.rally.files.defs.imports import IMPORT_JOB, import_asset
from rally_pipeline.rally.files.defs.inbox import import_sensor
from rally_pipeline.settings import Settings

__all__ = ["build_defs"]


def build_defs(settings: Settings) -> dg.Definitions:
    """Assets, jobs and the inbox sensor; the resources `rally` and `warehouse` come from elsewhere."""
    return dg.Definitions(
        assets=[
            *(import_asset(entity, settings) for entity in Entity),
            *(export_asset(entity, settings) for entity in Entity),
        ],
        jobs=[IMPORT_JOB, EXPORT_JOB],
        sensors=[import_sensor(settings)],
    )
