"""A mark of a warehouse table's content that differs whenever rows were written or removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rally_pipeline.warehouse import WarehouseError

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Warehouse


def content_mark(warehouse: Warehouse, table: str) -> str:
    """Rows, marked deletes and the latest write, as text; "" where the table does not exist or has no such columns.

    A row that was written without being changed keeps its `_synced_at`, so an idle run leaves the mark as it is.
    """
    shape = sa.table(table, sa.column("_synced_at"), sa.column("_deleted_at"))
    latest = sa.func.max(shape.c["_synced_at"])
    for query in (
        sa.select(sa.func.count(), latest, sa.func.count(shape.c["_deleted_at"])).select_from(shape),
        sa.select(sa.func.count(), latest).select_from(shape),
    ):
        try:
            with warehouse.reading() as transaction:
                row = transaction.rows(query)[0]
        except WarehouseError:
            continue  # without the soft-delete column, or without the table
        return "|".join(str(value) for value in row)
    return ""
