"""Everything that a command needs of SignalSmith, opened together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rally_pipeline.clock import Clock
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith.client import SignalSmithClient, connect
from rally_pipeline.signalsmith.refresh import CatalogRefresh
from rally_pipeline.warehouse import Warehouse

if TYPE_CHECKING:
    from rally_pipeline.http.transport import Transport


@contextmanager
def open_client(
    settings: Settings, *, clock: Clock | None = None, transport: Transport | None = None
) -> Iterator[SignalSmithClient]:
    """A client, closed at the end. Raises `SettingsError` where a variable is missing."""
    client = connect(settings, clock=clock, transport=transport)
    try:
        yield client
    finally:
        client.http.close()


@contextmanager
def open_refresh(
    settings: Settings, *, clock: Clock | None = None, transport: Transport | None = None
) -> Iterator[CatalogRefresh]:
    """What keeps the catalog up to date, on an open warehouse."""
    with (
        open_client(settings, clock=clock, transport=transport) as client,
        open_warehouse(settings) as warehouse,
    ):
        yield CatalogRefresh(settings, client, warehouse, clock)


@contextmanager
def open_warehouse(settings: Settings) -> Iterator[Warehouse]:
    """The warehouse that the settings name."""
    with Warehouse.open(
        settings.warehouse, schema=settings.warehouse_schema, home=settings.home_path
    ) as opened:
        yield opened
