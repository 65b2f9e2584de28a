"""Which of the warehouse's tables a sync's model reads, as far as its SQL says so plainly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST_SQL = 100_000
_RALLY = ("contacts", "companies", "deals", "activities")
_SELL = (
    "leads", "contacts", "deals", "accounts", "users", "notes", "tasks", "tags", "sources", "loss_reasons",
    "pipelines", "stages",
)  # fmt: skip
KNOWN_TABLES: Mapping[str, tuple[str, str]] = {
    **{f"rally_{name}": ("rally", name) for name in _RALLY},
    **{f"sell_{name}": ("sell", name) for name in _SELL},
}
"""Tables that this package fills, and the asset key of each."""

_NOISE = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'", re.DOTALL)
_NAME = r'(?:"[^"]+"|`[^`]+`|\[[^\]]+\]|[A-Za-z_][A-Za-z0-9_$]*)'
_TABLE = re.compile(rf"\b(?:from|join)\s+((?:{_NAME}\s*\.\s*){{0,2}}{_NAME})", re.IGNORECASE)
_MORE = re.compile(rf"\s*(?:as\s+)?(?:{_NAME})?\s*,\s*((?:{_NAME}\s*\.\s*){{0,2}}{_NAME})", re.IGNORECASE)


def model_tables(model: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the tables in FROM and JOIN of the model's SQL, or of its source table; lower case, sorted.

    Only names are read, never nested meaning: a common table expression counts as a table that nobody knows.
    """
    table = model.get("source_table")
    if isinstance(table, str) and table:
        return (table.lower(),)
    sql = model.get("sql_query")
    if not isinstance(sql, str) or len(sql) > LONGEST_SQL:
        return ()
    plain = _NOISE.sub(" ", sql)
    found = set()
    for match in _TABLE.finditer(plain):
        found.add(_bare(match[1]))
        end = match.end()
        while more := _MORE.match(plain, end):
            found.add(_bare(more[1]))
            end = more.end()
    return tuple(sorted(found))


def known_upstream(tables: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Asset keys of the tables that this package fills."""
    return tuple(KNOWN_TABLES[name] for name in sorted(set(tables)) if name in KNOWN_TABLES)


def model_columns(model: Mapping[str, Any]) -> dict[str, str]:
    """The warehouse's type of each column of the model, where the model tells it."""
    columns = model.get("columns")
    if not isinstance(columns, list):
        return {}
    return {
        column["name"]: column["type"]
        for column in columns
        if isinstance(column, Mapping)
        and isinstance(column.get("name"), str)
        and isinstance(column.get("type"), str)
    }


def _bare(name: str) -> str:
    """The last part of a qualified name, without quotes."""
    return name.rsplit(".", maxsplit=1)[-1].strip().strip('"`[]').lower()
