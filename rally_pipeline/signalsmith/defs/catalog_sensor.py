"""`signalsmith_catalog_sensor`: when syncs or crons change in SignalSmith, the catalog is fetched and the location
loaded anew."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.cursor import RequestCursor
from rally_pipeline.orchestration.diagnosis import diagnose
from rally_pipeline.orchestration.failures import failure
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.runs import describe, run_under_way
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith.catalog_file import load_catalog
from rally_pipeline.signalsmith.defs import names
from rally_pipeline.signalsmith.defs.catalog_asset import CATALOG_JOB
from rally_pipeline.signalsmith.defs.resource import SignalSmithResource

INTERVAL_SECONDS = 120
OLDEST = timedelta(hours=12)
"""Models and the workspace's time zone are not in the list of syncs: they are looked at this often anyway."""


def catalog_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor; one list call a tick."""

    @dg.sensor(
        name=names.CATALOG_SENSOR,
        job=CATALOG_JOB,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=policy.sensor_status(settings),
        description="Compares SignalSmith's list of syncs with the catalog (one request a tick) and has the catalog"
        " fetched where anything but runs has changed, or where it is missing or old.",
    )
    def signalsmith_catalog_sensor(
        context: dg.SensorEvaluationContext, signalsmith: SignalSmithResource, warehouse: WarehouseResource
    ) -> dg.SensorResult:
        cursor, now = RequestCursor.read(context.cursor), datetime.now(UTC)
        busy = run_under_way(context.instance, names.CATALOG_JOB)
        if busy is not None:
            return _skipped(f"{describe(busy)}", cursor)
        try:
            with signalsmith.refresh(warehouse, tick=True) as refresh:
                found = refresh.remote_fingerprint()
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                raise
            if diagnosis.repeatable:
                return _skipped(f"{diagnosis.line}; tried again at the next tick", cursor)
            raise failure(error, diagnosis) from error
        reason = why_refresh(settings, found, now)
        if not reason:
            return _skipped("nothing changed (1 request)", cursor)
        pause = cursor.pause_before(found, now)
        if pause is not None:
            return _skipped(f"{reason}: asked for already; repeated after {pause:%H:%M:%S} UTC", cursor)
        context.log.info(reason)
        asked = cursor.asked(found, now, interval_seconds=INTERVAL_SECONDS)
        return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=asked.text())

    return signalsmith_catalog_sensor


def why_refresh(settings: Settings, fingerprint: str, now: datetime) -> str:
    """Why the catalog should be fetched; "" where it is good."""
    loaded = load_catalog(settings.home_path, settings.signalsmith_workspace_id)
    fetched = loaded.catalog.fetched
    if loaded.problem or fetched is None:
        return loaded.problem or "the catalog does not say when it was fetched"
    if loaded.catalog.fingerprint != fingerprint:
        return "syncs have changed in SignalSmith"
    return f"the catalog is of {fetched:%Y-%m-%d %H:%M} UTC" if now - fetched > OLDEST else ""


def _skipped(reason: str, cursor: RequestCursor) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=cursor.text())
