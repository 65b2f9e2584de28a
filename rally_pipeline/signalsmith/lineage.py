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

_NOISE = re.compile(r"--[^\n]*+|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*+'", re.DOTALL)
_TOKEN = re.compile(r'"[^"]*+"|`[^`]*+`|\[[^\]]*+\]|[A-Za-z_][A-Za-z0-9_$]*+|\S')
_CLAUSES = frozenset({
    "where", "group", "order", "having", "limit", "union", "intersect", "except", "join", "left", "right", "inner",
    "outer", "full", "cross", "natural", "on", "using", "window", "qualify", "offset", "fetch", "select", "lateral",
})  # fmt: skip
"""Words that end a list of tables; anything else after a table is its alias."""


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
    return tuple(sorted(_named_tables(_TOKEN.findall(_NOISE.sub(" ", sql)))))


def _named_tables(pieces: list[str]) -> set[str]:
    """One pass over the words: a name after FROM or JOIN, and after each comma of the list that FROM began."""
    found: set[str] = set()
    expecting = listing = False
    name: list[str] = []
    for piece in [*pieces, ";"]:
        word = piece.lower()
        if expecting and (piece == "." or (_is_name(piece) and (not name or name[-1] == "."))):
            name.append(piece)
            continue
        if name:
            found.add(_bare(name[-1]))
            name, expecting, listing = [], False, True
        if word in ("from", "join"):
            expecting, listing = True, False
        elif piece == "," and listing:
            expecting = True
        else:
            expecting = False
            listing = listing and word not in _CLAUSES and piece not in "();"
    return found


def _is_name(piece: str) -> bool:
    return piece[0] in '"`[_' or piece[0].isalpha()


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
    return name.strip('"`[]').lower()
