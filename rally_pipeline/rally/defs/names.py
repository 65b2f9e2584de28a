"""Names by which Dagster knows Rally's assets, jobs and triggers: identities, never to be changed."""

from rally_pipeline.rally.entities import Entity

FEED = ("rally_feed", "changes")

FULL_EXTRACT = "rally_full_extract"
INCREMENTAL = "rally_incremental"
RECONCILE = "reconcile"
SENSOR = "rally_changes_sensor"
SCHEDULE = "rally_feed_close"
RECONCILE_SCHEDULE = "reconcile_schedule"


def extract_key(entity: Entity) -> tuple[str, str]:
    """Asset key of the full extract of `entity`."""
    return ("rally_extract", entity.value)


def mirror_key(entity: Entity) -> tuple[str, str]:
    """Asset key of the mirror of `entity`."""
    return ("rally", entity.value)
