"""Names in Dagster that the outside world relies on, and the run tags by which a run knows what it is for."""

from rally_pipeline.signalsmith.catalog import Entry

GROUP = "signalsmith"
CATALOG_KEY = ("signalsmith", "catalog")
CATALOG_JOB = "signalsmith_catalog"
TRIGGER_SENSOR = "sync_trigger_sensor"
RUNS_SENSOR = "signalsmith_runs_sensor"
CATALOG_SENSOR = "signalsmith_catalog_sensor"

SYNC_TAG = "signalsmith/sync_id"
TICK_TAG = "signalsmith/tick"
NOT_BEFORE_TAG = "signalsmith/not_before"
REMOTE_RUN_TAG = "signalsmith/run_id"
"""On materialisations, observations and runs: the run in SignalSmith."""

ROWS_CHECK = "rows_accepted"


def sync_key(entry: Entry) -> tuple[str, str]:
    """Asset key of a sync."""
    return ("signalsmith", entry.slug)


def job_name(entry: Entry) -> str:
    """Job that runs just this sync."""
    return f"signalsmith_{entry.slug}"


def schedule_name(entry: Entry) -> str:
    """Schedule derived from its cron."""
    return f"signalsmith_{entry.slug}_schedule"


def op_name(entry: Entry) -> str:
    """Step of the asset."""
    return f"signalsmith__{entry.slug}"


def stream_name(entry: Entry) -> str:
    """One run per sync at a time."""
    return f"signalsmith.{entry.slug}"
