"""Records of the sandbox against rows of the warehouse, value by value, by code that the engines do not use."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

_OURS = frozenset({"_version", "_synced_at", "_deleted_at", "revision", "extra"})
"""Columns that say nothing about the record."""
_MONEY = frozenset({"value", "annual_revenue"})
"""Columns whose decimals are kept as numbers, whatever zeros stand at their end."""
_HUMP = re.compile(r"(?<!^)(?=[A-Z])")


def count_differences(
    records: Mapping[Hashable, Mapping[str, Any]], rows: Mapping[Hashable, Mapping[str, Any]]
) -> int:
    """Rows that are missing, that should not be there, or in which any value is another one."""
    surplus = len(rows.keys() - records.keys())
    return surplus + sum(key not in rows or not agrees(record, rows[key]) for key, record in records.items())


def agrees(record: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether the row says what the record says, nothing less and nothing more."""
    extra = _decoded(row["extra"]) or {}
    named = {column_name(name): (name, value) for name, value in record.items()}
    for column, (name, value) in named.items():
        stored = row[column] if column in row and column not in _OURS else None
        shown = _number(value) if column in _MONEY and isinstance(value, str) else value
        if not (_same(shown, stored) or (name in extra and _same(value, extra[name]))):
            return False
    silent = row.keys() - named.keys() - _OURS - {"id"}
    return all(row[column] is None for column in silent) and extra.keys() <= record.keys()


def column_name(field: str) -> str:
    """How a field of the API is called in the warehouse and in files."""
    return _HUMP.sub("_", field).lower()


def column_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record under these names."""
    return {column_name(name): value for name, value in record.items()}


def _same(value: Any, stored: Any) -> bool:
    if value is None or stored is None:
        return value is stored
    if isinstance(value, dict | list):
        return bool(_plain(value) == _plain(_decoded(stored)))
    if isinstance(value, int | float | Decimal):
        return Decimal(str(+value)) == _number(stored)
    return bool(value == stored) or (_instant(value) is not None and _instant(value) == _instant(stored))


def _decoded(stored: Any) -> Any:
    return json.loads(stored, parse_float=Decimal) if isinstance(stored, str) else stored


def _plain(value: Any) -> Any:
    """The same structure with every number exact."""
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return Decimal(str(value)) if isinstance(value, float) else value


def _number(stored: Any) -> Decimal | None:
    try:
        return Decimal(str(+stored if isinstance(stored, int) else stored))
    except ArithmeticError:
        return None


def _instant(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
