"""What a warehouse holds, to see that a step that was stopped left nothing behind."""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect, text

from rally_pipeline.warehouse import Warehouse

_BOOKKEEPING = ("leases",)


def contents(warehouse: Warehouse) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table except the leases, which are renewed by whoever works."""
    with warehouse.reading() as tx:
        names = inspect(tx.connection).get_table_names()
        return {
            name: sorted((tuple(row) for row in tx.execute(text(f'SELECT * FROM "{name}"'))), key=repr)
            for name in names
            if not name.endswith(_BOOKKEEPING)
        }
