"""From settings to a mirror that is ready for use: the one way for steps, commands and scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.processes import PATIENCE_SECONDS
from rally_pipeline.sell.client import SellClient, connect
from rally_pipeline.sell.device import DeviceClaims
from rally_pipeline.sell.mirror import Progress, SellMirror, no_progress
from rally_pipeline.sell.policy import SellPolicy
from rally_pipeline.warehouse import Warehouse

if TYPE_CHECKING:
    from rally_pipeline.settings import Settings


@contextmanager
def open_mirror(
    settings: Settings,
    *,
    client: SellClient | None = None,
    progress: Progress = no_progress,
    clock: Clock | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[SellMirror]:
    """The mirror of the account in the warehouse that the settings name, its tables in place; closed at the end.

    `client` is used instead of a new one, and stays open. Another writer on the queue is waited for up to
    `patience_seconds`. No request is made here.

    Raises:
        SettingsError: a variable is missing.
        WarehouseError: the warehouse cannot be used; one line says why.
    """
    clock = clock or SystemClock()
    used = client or connect(settings, clock=clock)
    policy = replace(SellPolicy.of(settings), lease_wait_seconds=patience_seconds)
    try:
        with Warehouse.open(
            settings.warehouse, schema=settings.warehouse_schema, clock=clock, home=settings.home_path
        ) as warehouse:
            mirror = SellMirror(
                warehouse,
                used,
                policy,
                claims=DeviceClaims(settings.home_path / "sell-devices"),
                clock=clock,
                progress=progress,
            )
            mirror.prepare()
            yield mirror
    finally:
        if client is None:
            used.http.close()
