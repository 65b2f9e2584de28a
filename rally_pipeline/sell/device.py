"""One device UUID belongs to one warehouse lineage: the server forgets for this device what it acknowledged.

The UUID comes from `SELL_DEVICE_UUID` and is kept in the warehouse with the warehouse's own identity. A run is
refused when they differ, when the warehouse is a copy or was restored (its acknowledgements are then ahead of its
rows), or when another warehouse uses the UUID: in each case items would be lost for good, silently.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select

from rally_pipeline.sell import marks
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.errors import DeviceMismatch
from rally_pipeline.sell.queue import QueueItem
from rally_pipeline.sell.records import read_identity
from rally_pipeline.sell.tables import ENTITY_TABLES, failed_objects, pending_acks, queue_items
from rally_pipeline.warehouse import Identity, Transaction
from rally_pipeline.warehouse.identity import moved_message

STREAM = "sell.device"
SESSION_STREAM = "sell.session"

_CHOICE = (
    "Choose: `rally-pipeline sell new-device` makes a new UUID, has everything sent again and looks at rows that"
    " are not sent (always safe); `rally-pipeline sell adopt-device` goes on under SELL_DEVICE_UUID as it is"
    " (right only if this warehouse, and no other, holds all that was acknowledged under it)"
)


@dataclass(frozen=True, slots=True)
class Device:
    """What the warehouse knows of the device under which its rows were acknowledged."""

    uuid: str
    lineage: int
    """Raised by every new UUID."""
    warehouse: str
    """Identity of the warehouse that it belongs to."""
    proven: bool
    """Whether a first full sync was completed under it, or a person vouched for it."""
    sweep: bool = False
    """Whether rows that the full resend does not bring are still to be looked for."""
    allowed: int | None = None
    """How many such rows a person allowed to be looked at, where the guard asked."""

    @staticmethod
    def of(state: Mapping[str, Any]) -> Device:
        return Device(**{name: state[name] for name in Device.__slots__ if name in state})

    def save(self, tx: Transaction) -> None:
        """Write the state."""
        tx.set_state(STREAM, {name: getattr(self, name) for name in Device.__slots__})


class DeviceClaims:
    """Which warehouse uses which UUID, among all that were ever used with one home folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def holder(self, uuid: str) -> str | None:
        """Identity of the warehouse that uses the UUID."""
        try:
            return str(json.loads(self._file(uuid).read_text(encoding="utf-8"))["warehouse"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return "unreadable"

    def claim(self, uuid: str, warehouse: str) -> None:
        """Note that the warehouse uses the UUID from now on."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._folder / f".{uuid}.{os.getpid()}"
        temporary.write_text(json.dumps({"warehouse": warehouse}), encoding="utf-8")
        temporary.replace(self._file(uuid))

    def _file(self, uuid: str) -> Path:
        return self._folder / f"{uuid}.json"


def check_uuid(text: str) -> str:
    """The UUID in its canonical form.

    Raises:
        DeviceMismatch: it is none; a guess such as a host name would be shared sooner or later.
    """
    try:
        return str(UUID(text.strip()))
    except ValueError:
        raise DeviceMismatch(
            "SELL_DEVICE_UUID is not a UUID: make one with `rally-pipeline sell new-device` and keep it"
        ) from None


def read_device(tx: Transaction) -> Device | None:
    """The device of this warehouse; None before the first drain."""
    state = tx.state(STREAM)
    return None if state is None else Device.of(state)


def check_device(tx: Transaction, uuid: str, identity: Identity, claims: DeviceClaims | None) -> Device:
    """The device of this warehouse, taken from the setting the first time.

    Raises:
        DeviceMismatch: going on could lose items; the message spells out the choice.
    """
    known = read_device(tx)
    if identity.moved:
        raise DeviceMismatch(
            moved_message(identity, "it cannot go on under the Sell device UUID")
            + " (always safe: a new Sell device, everything is sent again). Only if it was moved as it is and its old"
            " place was given up: `rally-pipeline sell adopt-device`"
        )
    if known is not None and known.uuid != uuid:
        raise DeviceMismatch(
            f"SELL_DEVICE_UUID is {uuid}, but the rows in this warehouse were acknowledged under {known.uuid}: set"
            f" SELL_DEVICE_UUID={known.uuid}, or decide. {_CHOICE}"
        )
    if known is not None and known.warehouse != identity.id:
        raise DeviceMismatch(
            f"the Sell device UUID {uuid} was used by warehouse {known.warehouse}, this is {identity.id}. {_CHOICE}"
        )
    holder = claims.holder(uuid) if claims is not None else None
    if holder is not None and holder != identity.id:
        raise DeviceMismatch(
            f"the Sell device UUID {uuid} is in use by another warehouse ({holder}): what one acknowledges the"
            f" other never gets. {_CHOICE}"
        )
    if known is None:
        if _has_rows(tx):
            raise DeviceMismatch(
                f"this warehouse holds Sell rows but not the UUID of their device. {_CHOICE}"
            )
        known = Device(uuid, 1, identity.id, proven=False)
        known.save(tx)
    if claims is not None and holder is None:
        claims.claim(uuid, identity.id)
    return known


def check_first_items(tx: Transaction, device: Device, items: Iterable[QueueItem]) -> None:
    """In the first sync of a lineage every object is new to its device, so none can arrive as `updated`.

    Raises:
        DeviceMismatch: somebody else has acknowledged under this UUID.
    """
    for item in items:
        object_id = read_identity(bytes(memoryview(item.data))) if item.event_type == "updated" else None
        if object_id is not None and not _is_known(tx, item.type, object_id):
            raise DeviceMismatch(
                f"the Sell device UUID {device.uuid} has acknowledged objects that this warehouse never received:"
                f" it was used elsewhere. Nothing was acknowledged. {_CHOICE}"
            )


def check_first_start(tx: Transaction, device: Device) -> None:
    """An account is never empty, so a device that never got anything cannot be told that nothing is new.

    Raises:
        DeviceMismatch: somebody else has acknowledged everything under this UUID.
    """
    landed = select(func.count()).where(queue_items.c.lineage == device.lineage)
    if not tx.scalar(landed):
        raise DeviceMismatch(
            f"Sell has nothing new for device {device.uuid}, although this warehouse never received anything: the"
            f" UUID was used elsewhere, or the token's user sees no records. {_CHOICE}"
        )


def adopt_device(tx: Transaction, uuid: str, identity: Identity, claims: DeviceClaims | None) -> Device:
    """Go on under `uuid`: a person vouches that what was acknowledged under it is in this warehouse."""
    known = read_device(tx)
    warehouse = tx.renew_identity() if identity.moved else identity.id
    if known is None or known.uuid != uuid:
        _leave_session(tx)
        tx.execute(delete(pending_acks))
    lineage = known.lineage if known is not None else 1
    device = Device(uuid, lineage, warehouse, proven=True)
    device.save(tx)
    if claims is not None:
        claims.claim(uuid, warehouse)
    return device


def new_device(
    tx: Transaction, identity: Identity, claims: DeviceClaims | None, *, uuid: str | None = None
) -> Device:
    """A new lineage: everything is sent again, and then the rows that were not sent are looked at."""
    known = read_device(tx)
    warehouse = tx.renew_identity() if identity.moved else identity.id
    _leave_session(tx)
    tx.execute(delete(pending_acks))
    lineage = known.lineage + 1 if known is not None else 2
    device = Device(uuid or str(uuid4()), lineage, warehouse, proven=False, sweep=_has_rows(tx))
    device.save(tx)
    if claims is not None:
        claims.claim(device.uuid, warehouse)
    return device


def _is_known(tx: Transaction, kind: str, object_id: str) -> bool:
    """Whether the warehouse has heard of the object in any way."""
    landed = select(func.count()).where(queue_items.c.type == kind, queue_items.c.id == object_id)
    if tx.scalar(landed) or marks.marked_among(tx, failed_objects, [(kind, object_id)]):
        return True
    entity = Entity.of_singular(kind)
    table = ENTITY_TABLES[entity] if entity is not None else None
    return table is not None and object_id.isdigit() and bool(tx.fetch(table, (), [int(object_id)]))


def _leave_session(tx: Transaction) -> None:
    """A session belongs to its device: nothing more is fetched from it."""
    tx.set_state(SESSION_STREAM, {})


def _has_rows(tx: Transaction) -> bool:
    return any(tx.scalar(select(func.count()).select_from(table)) for table in ENTITY_TABLES.values())
