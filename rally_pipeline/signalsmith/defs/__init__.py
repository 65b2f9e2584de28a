"""SignalSmith in Dagster, built from the catalog file alone: no network and no warehouse while loading."""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith.catalog import label
from rally_pipeline.signalsmith.catalog_file import LoadedCatalog, load_catalog
from rally_pipeline.signalsmith.defs.catalog_asset import CATALOG_JOB, catalog_asset
from rally_pipeline.signalsmith.defs.catalog_sensor import catalog_sensor
from rally_pipeline.signalsmith.defs.resource import SignalSmithResource
from rally_pipeline.signalsmith.defs.runs_sensor import runs_sensor
from rally_pipeline.signalsmith.defs.sync_assets import SyncPlan, sync_asset, sync_job
from rally_pipeline.signalsmith.defs.sync_schedules import sync_schedule
from rally_pipeline.signalsmith.defs.trigger_sensor import trigger_sensor
from rally_pipeline.signalsmith.options import read_options
from rally_pipeline.signalsmith.schedules import SchedulePlan, plan_schedule, zone_problem

__all__ = ["SignalSmithResource", "build_defs"]
logger = logging.getLogger(__name__)


def build_defs(settings: Settings) -> dg.Definitions:
    """The catalog, and for each sync an asset, a job and, where its cron allows, a schedule.

    One sync that Dagster refuses takes no other down: it is left out and named in the log.
    """
    loaded = load_catalog(settings.home_path, settings.signalsmith_workspace_id)
    _announce(loaded)
    with _no_collection():
        built = [*_build_syncs(settings, loaded)]
    plans = [plan for plan, _, _, _ in built]
    return dg.Definitions(
        assets=[catalog_asset(settings, loaded, plans), *(asset for _, asset, _, _ in built)],
        jobs=[CATALOG_JOB, *(job for _, _, job, _ in built)],
        schedules=[schedule for _, _, _, schedule in built if schedule is not None],
        sensors=[
            trigger_sensor(settings, [(plan, job) for plan, _, job, _ in built]),
            runs_sensor(settings, plans),
            catalog_sensor(settings),
        ],
        resources={"signalsmith": SignalSmithResource.of(settings)},
    )


Built = tuple[SyncPlan, dg.AssetsDefinition, Any, dg.ScheduleDefinition | None]


def _build_syncs(settings: Settings, loaded: LoadedCatalog) -> "Iterator[Built]":
    options = read_options(settings.syncs_dir)
    if options.problem:
        logger.error("signalsmith: %s; until it is corrected no sync is triggered", options.problem)
    catalog = loaded.catalog
    for entry in catalog.entries:
        chosen = options.of(entry.id, entry.name, entry.config)
        plan = SyncPlan(catalog, entry, chosen, plan_schedule(entry, chosen, catalog.timezone))
        try:
            asset, job = sync_asset(plan), sync_job(plan)
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this sync alone
            logger.error("signalsmith: %s is left out: %s", label(entry), error)
            continue
        plan, schedule = _build_schedule(plan, job, settings)
        yield plan, asset, job, schedule


def _build_schedule(
    plan: SyncPlan, job: Any, settings: Settings
) -> tuple[SyncPlan, dg.ScheduleDefinition | None]:
    try:
        return plan, sync_schedule(plan, job, settings)
    except Exception as error:  # noqa: BLE001 - as above
        logger.error("signalsmith: %s gets no schedule: %s", label(plan.entry), error)
        refused = SchedulePlan(None, reason=f"Dagster refuses it: {' '.join(str(error).split())[:200]}")
        return SyncPlan(plan.catalog, plan.entry, plan.options, refused), None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Everything made inside stays alive: looking for garbage among it took a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _announce(loaded: LoadedCatalog) -> None:
    if loaded.problem:
        logger.warning("signalsmith: %s", loaded.problem)
    problem = zone_problem(loaded.catalog) if loaded.catalog.entries else ""
    if problem:
        logger.warning("signalsmith: no schedules: %s", problem)
