"""Sell in Dagster, loaded when its token and device UUID are set. Loading touches no network."""

import dagster as dg

from rally_pipeline.sell.defs.assets import queue_asset, table_assets
from rally_pipeline.sell.defs.resource import SellResource
from rally_pipeline.sell.defs.triggers import DRAIN_JOB, drain_schedule
from rally_pipeline.settings import Settings

__all__ = ["SellResource", "build_defs"]


def build_defs(settings: Settings) -> dg.Definitions:
    """Assets, job and schedule of Sell, and the resource `sell`; `warehouse` is shared."""
    return dg.Definitions(
        assets=[queue_asset(), table_assets(settings)],
        jobs=[DRAIN_JOB],
        schedules=[drain_schedule(settings)],
        resources={"sell": SellResource.of(settings)},
    )
