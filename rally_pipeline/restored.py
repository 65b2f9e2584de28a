"""A person says that the warehouse was restored from a backup or copied: what has to be forgotten, in one transaction.

A copy of a whole home with its files' numbers kept, and a machine that was set back, cannot be recognised from inside
(see `warehouse.identity`), so nothing here depends on its being recognised.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rally_pipeline.clock import Clock, Step, SystemClock, no_step
from rally_pipeline.rally import tables as rally_tables
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files import tables as file_tables
from rally_pipeline.rally.files.restored import InboxFile, assume_imported, read_inbox
from rally_pipeline.rally.restored import distrust
from rally_pipeline.sell import device as devices
from rally_pipeline.sell import tables as sell_tables
from rally_pipeline.warehouse import Warehouse, WarehouseError
from rally_pipeline.warehouse.evolution import existing_columns

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from rally_pipeline.settings import Settings
    from rally_pipeline.warehouse import Transaction


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done.

    Attributes:
        warehouse: its new identity.
        reasons: why it was recognised as a copy or an older state; empty where it was not.
        feed_from: from when on Rally's feed is read again; None where it was never read.
        device_uuid: the new Sell device; None where Sell is neither configured nor in the warehouse.
        files: what counts as imported from now on.
        unread: files of the inbox that could not be read, a line each.
    """

    warehouse: str
    reasons: tuple[str, ...]
    feed_from: datetime | None
    device_uuid: str | None
    files: tuple[tuple[Entity, str], ...]
    unread: tuple[str, ...]


def why_moved(warehouse: Warehouse) -> tuple[str, ...]:
    """Why the warehouse is taken for a copy or an older state; empty where nothing shows."""
    try:
        return warehouse.identity().reasons
    except WarehouseError as error:
        return (str(error),)


def declare_restored(settings: Settings, *, clock: Clock | None = None, step: Step = no_step) -> Restored:
    """Give the warehouse a new identity and a new Sell device, and distrust what the backup could not know.

    All of it is one transaction: killed before its commit nothing is done, after it everything, and the same call may
    be made again at any time. Makes no request. `step` is the hook of the warehouse's transactions.

    Raises:
        WarehouseError: the warehouse cannot be used; one line says why.
    """
    clock = clock or SystemClock()
    with Warehouse.open(
        settings.warehouse, schema=settings.warehouse_schema, clock=clock, step=step, home=settings.home_path
    ) as warehouse:
        inbox, unread = read_inbox(settings.imports_path)
        with_sell = _complete_tables(warehouse, settings, inbox)
        reasons = why_moved(warehouse)
        with warehouse.transaction("restored") as tx:
            identity = tx.begin_anew()
            feed_from = distrust(tx) if _has(tx, rally_tables.metadata) else None
            device = None
            if with_sell:
                claims = devices.DeviceClaims(settings.home_path / "sell-devices")
                device = devices.new_device(tx, identity, claims)
            files = assume_imported(tx, inbox, clock.now()) if _has(tx, file_tables.metadata) else []
    return Restored(
        warehouse=identity.id,
        reasons=reasons,
        feed_from=feed_from,
        device_uuid=None if device is None else device.uuid,
        files=tuple(files),
        unread=tuple(unread),
    )


def _complete_tables(warehouse: Warehouse, settings: Settings, inbox: list[InboxFile]) -> bool:
    """Bring the tables that are there, or that are needed, up to this version; whether Sell's are among them."""
    with warehouse.reading() as tx:
        rally = _has(tx, rally_tables.metadata)
        files = _has(tx, file_tables.metadata) or bool(inbox)
        sell = _has(tx, sell_tables.metadata) or settings.is_configured("sell")
    wanted = ((rally, rally_tables.metadata), (files, file_tables.metadata), (sell, sell_tables.metadata))
    for needed, metadata in wanted:
        if needed:
            warehouse.create_tables(metadata)
    return sell


def _has(tx: Transaction, metadata: MetaData) -> bool:
    """Whether any of the tables is there."""
    return not existing_columns(tx.connection).keys().isdisjoint(metadata.tables)
