"""How every run of the package behaves: executor, pools, limits, tags, switches. Policy lives here once."""

from datetime import timedelta

import dagster as dg

from rally_pipeline.settings import Settings

EXECUTOR = dg.in_process_executor
"""A run talks to one API, whose rate limit is the speed limit: more processes would only start more slowly."""

STREAM_TAG = "rally_pipeline/stream"
"""Run tag; `dagster.yaml` lets one run per value work at a time and queues the others."""

MAX_RUNTIME_TAG = "dagster/max_runtime"
PRIORITY_TAG = "dagster/priority"

FULL_EXTRACT_SECONDS = 6 * 3600
INCREMENTAL_SECONDS = 3600


def stream_tags(stream: str, *, seconds: int, priority: int = 0) -> dict[str, str]:
    """Tags of a job: one run of `stream` at a time, ended after `seconds`, dequeued by `priority` (higher first)."""
    return {STREAM_TAG: stream, MAX_RUNTIME_TAG: str(seconds), PRIORITY_TAG: str(priority)}


def sensor_status(settings: Settings) -> dg.DefaultSensorStatus:
    """Sensors start switched off unless `RALLY_AUTOSTART` says otherwise."""
    return dg.DefaultSensorStatus.RUNNING if settings.rally_autostart else dg.DefaultSensorStatus.STOPPED


def schedule_status(settings: Settings) -> dg.DefaultScheduleStatus:
    """Schedules start switched off unless `RALLY_AUTOSTART` says otherwise."""
    return dg.DefaultScheduleStatus.RUNNING if settings.rally_autostart else dg.DefaultScheduleStatus.STOPPED


def read_only_skip(settings: Settings, what: str) -> dg.SkipReason | None:
    """The reason why a tick asks for no run where `RALLY_PIPELINE_READ_ONLY` is on; `what` does not happen then."""
    if not settings.rally_pipeline_read_only:
        return None
    return dg.SkipReason(f"RALLY_PIPELINE_READ_ONLY=true forbids writing: {what}")


def warehouse_kind(settings: Settings) -> str:
    """The icon of assets that live in the warehouse."""
    return "sqlite" if settings.warehouse_is_file else "postgres"


def hourly_freshness() -> dg.FreshnessPolicy:
    """For assets that a schedule touches every hour: late after two missed hours, failed after four."""
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=4), warn_window=timedelta(hours=2))
