"""One way to talk SQL: connections, tables, bulk loads, state, leases and quarantine, alike on SQLite and PostgreSQL.

The names below are loaded on first use, so that naming an error does not load the database libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rally_pipeline.warehouse.database import Warehouse
    from rally_pipeline.warehouse.errors import (
        CommitUnknown,
        FenceLost,
        LeaseHeld,
        RowRefused,
        WarehouseBusy,
        WarehouseDamaged,
        WarehouseError,
        WarehouseFull,
        WarehouseNewer,
        WarehouseUnavailable,
    )
    from rally_pipeline.warehouse.identity import Identity
    from rally_pipeline.warehouse.leasing import Lease
    from rally_pipeline.warehouse.plans import Key, Row, UpsertResult
    from rally_pipeline.warehouse.quarantine import QuarantinedRecord
    from rally_pipeline.warehouse.transaction import Transaction

_HOMES = {
    "Warehouse": "database",
    "Transaction": "transaction",
    "Lease": "leasing",
    "Identity": "identity",
    "QuarantinedRecord": "quarantine",
    "Key": "plans",
    "Row": "plans",
    "UpsertResult": "plans",
    "CommitUnknown": "errors",
    "FenceLost": "errors",
    "LeaseHeld": "errors",
    "RowRefused": "errors",
    "WarehouseBusy": "errors",
    "WarehouseDamaged": "errors",
    "WarehouseError": "errors",
    "WarehouseFull": "errors",
    "WarehouseNewer": "errors",
    "WarehouseUnavailable": "errors",
}

__all__ = [
    "CommitUnknown",
    "FenceLost",
    "Identity",
    "Key",
    "Lease",
    "LeaseHeld",
    "QuarantinedRecord",
    "Row",
    "RowRefused",
    "Transaction",
    "UpsertResult",
    "Warehouse",
    "WarehouseBusy",
    "WarehouseDamaged",
    "WarehouseError",
    "WarehouseFull",
    "WarehouseNewer",
    "WarehouseUnavailable",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
