"""What the Dagster UI shows of a materialisation. The only place that knows the `dagster/…` metadata keys.

Texts that come from a remote system are text or table cells, never Markdown: they cannot draw links or images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from sqlalchemy import Table

SHOWN_REJECTS = 20
SHOWN_CHARACTERS = 300

_SQL_NAMES = {"BigInteger": "bigint", "ExactDecimal": "numeric", "Instant": "timestamp"}
"""What the UI calls the column types whose own name is no SQL type."""

Metadata = dict[str, dg.MetadataValue]


def numbers(namespace: str, counts: Mapping[str, int | float]) -> Metadata:
    """`counts` under stable keys such as `rally/inserted`, numeric, so that the UI plots each one over time."""
    return {f"{namespace}/{name}": _number(value) for name, value in counts.items()}


def _number(value: int | float) -> dg.MetadataValue:
    if isinstance(value, float):
        return dg.MetadataValue.float(round(value, 3))
    return dg.MetadataValue.int(int(value))


def row_count(rows: int) -> Metadata:
    """The number of rows in the table now."""
    return {"dagster/row_count": dg.MetadataValue.int(rows)}


def partition_row_count(rows: int) -> Metadata:
    """The number of rows of one partition."""
    return {"dagster/partition_row_count": dg.MetadataValue.int(rows)}


def instant(key: str, value: datetime | None) -> Metadata:
    """An aware instant, shown in the viewer's time zone; nothing when there is none yet."""
    return {} if value is None else {key: dg.MetadataValue.timestamp(value)}


def table(described: Table, *, schema: str | None = None) -> Metadata:
    """Name and columns of a warehouse table."""
    keys = list(described.primary_key.columns)
    columns = [
        dg.TableColumn(
            name=column.name,
            type=_SQL_NAMES.get(type(column.type).__name__, type(column.type).__name__.lower()),
            description=column.comment,
            constraints=dg.TableColumnConstraints(nullable=bool(column.nullable), unique=keys == [column]),
        )
        for column in described.columns
    ]
    return {
        "dagster/table_name": dg.MetadataValue.text(
            f"{schema}.{described.name}" if schema else described.name
        ),
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns=columns)),
    }


def rejects(key: str, found: Iterable[tuple[str, str]]) -> Metadata:
    """Quarantined records as a table of (key, reason), the first few; nothing when there are none."""
    records = [
        dg.TableRecord({"key": name[:SHOWN_CHARACTERS], "reason": reason[:SHOWN_CHARACTERS]})
        for name, reason in found
    ][:SHOWN_REJECTS]
    if not records:
        return {}
    return {key: dg.MetadataValue.table(records)}
