"""From settings to a mirror that is ready for use: the one way for steps, commands and scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.processes import PATIENCE_SECONDS
from rally_pipeline.rally.client import RallyClient, connect
from rally_pipeline.rally.mirror import MirrorPolicy, Progress, RallyMirror, no_progress
from rally_pipeline.warehouse import Warehouse

if TYPE_CHECKING:
    from rally_pipeline.settings import Settings


@contextmanager
def open_mirror(
    settings: Settings,
    *,
    client: RallyClient | None = None,
    progress: Progress = no_progress,
    clock: Clock | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[RallyMirror]:
    """The mirror of the tenant in the warehouse that the settings name, its tables in place; closed at the end.

    `client` is used instead of a new one, and stays open. No request is made here.

    Raises:
        SettingsError: a variable is missing.
        WarehouseError: the warehouse cannot be used; one line says why.
    """
    clock = clock or SystemClock()
    used = client or connect(settings, clock=clock)
    try:
        with Warehouse.open(settings.warehouse, schema=settings.warehouse_schema, clock=clock) as warehouse:
            mirror = RallyMirror(
                warehouse,
                used,
                MirrorPolicy.of(settings),
                clock=clock,
                progress=progress,
                patience_seconds=patience_seconds,
            )
            mirror.prepare()
            yield mirror
    finally:
        if client is None:
            used.http.close()
