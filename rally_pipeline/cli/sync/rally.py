"""Rally's part of `sync`: full extracts that are due, then the change feed up to now, then every mark."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rally_pipeline.cli.failures import CommandFailed
from rally_pipeline.orchestration.windows import WindowRange, hour_of
from rally_pipeline.rally.entities import Entity

if TYPE_CHECKING:
    from rally_pipeline.cli.sync.session import SyncSession


def catch_up(session: SyncSession) -> None:
    """The first time a full extract, then the feed from where it was left until now.

    Raises:
        CommandFailed: everything ran, but marks are still open although they were to be settled.
    """
    from dagster import AssetKey

    from rally_pipeline.rally.connection import open_mirror
    from rally_pipeline.rally.defs.names import FULL_EXTRACT, INCREMENTAL, extract_key, mirror_key
    from rally_pipeline.rally.defs.triggers import entities_to_extract

    with open_mirror(session.settings) as mirror:
        due = entities_to_extract(mirror)
    if due:
        keys = [AssetKey(list(key(entity))) for entity in due for key in (extract_key, mirror_key)]
        session.run(FULL_EXTRACT, assets=keys, ops=_settling(session, due))
    with open_mirror(session.settings) as mirror:
        synced_through = mirror.status().synced_through
    if synced_through is None:
        return  # no full extract has begun; its failures are kept
    windows = _windows_to_read(session, synced_through)
    session.run(INCREMENTAL, tags=windows.tags, ops=_settling(session, list(Entity)))
    _report(session)


def _settling(session: SyncSession, entities: list[Entity]) -> dict[str, object]:
    return {f"rally__{entity.value}": {"config": {"wait": session.wait}} for entity in entities}


def _windows_to_read(session: SyncSession, synced_through: datetime) -> WindowRange:
    """From the hour in which the last read stopped to the running one."""
    running = hour_of(datetime.now(UTC))
    first = max(hour_of(synced_through), session.settings.rally_feed_start)
    return WindowRange(min(first, running), running)


def _report(session: SyncSession) -> None:
    from rally_pipeline.rally.connection import open_mirror

    with open_mirror(session.settings) as mirror:
        status = mirror.status()
    session.lines.extend(f"{table.table}: {table.rows:,} rows" for table in status.tables)
    left = sum(table.open_marks for table in status.tables)
    if left and session.wait and not session.failures:
        raise CommandFailed(f"{left} changes could not be settled; `rally-pipeline status` shows where")
