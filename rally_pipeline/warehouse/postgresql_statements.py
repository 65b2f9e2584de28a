"""The SQL texts of PostgreSQL's bulk statements.

Names double their percent signs, as the driver asks for wherever it is given parameters: run these with some,
if only an empty list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from rally_pipeline.warehouse.plans import DELETED_AT, Plan, primary_key
from rally_pipeline.warehouse.types import ExactDecimal, Instant, Json

_dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_INSTANT_TEXT = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def quote(name: str) -> str:
    """The identifier in double quotes."""
    return str(_dialect.identifier_preparer.quote_identifier(name))


def column_type(table: sa.Table, column: str) -> str:
    """The column's type for a cast; a collation is no part of that, and an array of it is no type."""
    return str(table.columns[column].type.compile(dialect=_dialect)).partition(" COLLATE ")[0]


def _names(columns: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{quote(name)}" for name in columns)


def neutral(table: sa.Table, columns: Sequence[str], prefix: str = "") -> str:
    """The columns as storage-neutral values."""
    parts = []
    for name in columns:
        kind, quoted = table.columns[name].type, f"{prefix}{quote(name)}"
        if isinstance(kind, Instant):
            quoted = _INSTANT_TEXT.format(quoted)
        elif isinstance(kind, (ExactDecimal, Json)):
            quoted = f"{quoted}::text"
        parts.append(quoted)
    return ", ".join(parts)


@lru_cache(maxsize=512)
def stage_name(plan: Plan) -> str:
    shape = ",".join((plan.table.name, *(f"{name} {column_type(plan.table, name)}" for name in plan.columns)))
    return quote(f"rally_stage_{hashlib.sha256(shape.encode()).hexdigest()[:16]}")


@lru_cache(maxsize=512)
def create_stage(plan: Plan, stage: str) -> str:
    columns = ", ".join(f"{quote(name)} {column_type(plan.table, name)}" for name in plan.columns)
    return f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ({columns}) ON COMMIT DELETE ROWS"


@lru_cache(maxsize=512)
def merge(plan: Plan, stage: str) -> str:
    """One statement: each row is looked up by its key, and only new and different ones are written.

    Answers with the numbers of inserted and updated rows and the keys that the guard keeps out.
    """
    table, first = quote(plan.table.name), quote(plan.keys[0])
    keys = " AND ".join(f"o.{quote(name)} = s.{quote(name)}" for name in plan.keys)
    stored = _names((*plan.keys, *plan.compared, *plan.marks), "o.")
    older = "FALSE" if plan.guard is None else f"(t.{quote(plan.guard)} > s.{quote(plan.guard)}) IS TRUE"
    # OFFSET 0 keeps the planner from joining by a scan of the whole table, whatever its statistics say.
    sifted = (
        f"SELECT s.*, {older} AS rally_older FROM {stage} s "
        f"LEFT JOIN LATERAL (SELECT {stored} FROM {table} o WHERE {keys} OFFSET 0) t ON TRUE "
        f"WHERE t.{first} IS NULL OR {_differs(plan, 's')}"
    )
    insert = (
        f"INSERT INTO {table} AS t ({_names(plan.columns)}) SELECT {_names(plan.columns)} FROM sifted "
        f"WHERE NOT rally_older ON CONFLICT ({_names(plan.keys)}) DO {_update(plan)} RETURNING t.xmax = 0 AS fresh"
    )
    refused = f"SELECT {neutral(plan.table, plan.keys)} FROM sifted WHERE rally_older"
    # xmax is 0 for a row that this statement inserted and its locker's number for one that it updated.
    return (
        f"WITH sifted AS MATERIALIZED ({sifted}), merged AS ({insert}) "
        f"SELECT count(*) FILTER (WHERE fresh), count(*) FILTER (WHERE NOT fresh), "
        f"ARRAY(SELECT row_to_json(k) FROM ({refused}) k) FROM merged"
    )


def _update(plan: Plan) -> str:
    """What happens to a row that another session inserted between look-up and insert is judged again."""
    if not plan.assigned:
        return "NOTHING"
    changes = [f"{quote(name)} = excluded.{quote(name)}" for name in plan.assigned]
    changes += [f"{quote(name)} = NULL" for name in plan.marks]
    condition = _differs(plan, "excluded")
    if plan.guard is not None:
        condition += f" AND (t.{quote(plan.guard)} > excluded.{quote(plan.guard)}) IS NOT TRUE"
    return f"UPDATE SET {', '.join(changes)} WHERE {condition}"


def _differs(plan: Plan, incoming: str) -> str:
    differs = [f"t.{quote(name)} IS DISTINCT FROM {incoming}.{quote(name)}" for name in plan.compared]
    differs += [f"t.{quote(name)} IS NOT NULL" for name in plan.marks]
    return f"({' OR '.join(differs) or 'FALSE'})"


@lru_cache(maxsize=512)
def insert(plan: Plan, stage: str) -> str:
    return (
        f"INSERT INTO {quote(plan.table.name)} ({_names(plan.columns)}) SELECT {_names(plan.columns)} FROM {stage} "
        f"ON CONFLICT ({_names(plan.keys)}) DO NOTHING"
    )


def _keys_in(table: sa.Table) -> str:
    keys = primary_key(table)
    if len(keys) == 1:
        return f"{quote(keys[0])} = ANY(%s::{column_type(table, keys[0])}[])"
    lists = ", ".join(f"%s::{column_type(table, name)}[]" for name in keys)
    return f"({_names(keys)}) IN (SELECT * FROM unnest({lists}))"


@lru_cache(maxsize=512)
def fetch(table: sa.Table, columns: tuple[str, ...]) -> str:
    wanted = neutral(table, (*primary_key(table), *columns))
    return f"SELECT {wanted} FROM {quote(table.name)} WHERE {_keys_in(table)}"


@lru_cache(maxsize=512)
def near(table: sa.Table, column: str) -> str:
    """Rows by their place in the table: those that one page brought lie together until they are changed."""
    (key,) = primary_key(table)
    name = quote(table.name)
    first = f"(SELECT ctid FROM {name} WHERE {quote(key)} = %s::{column_type(table, key)})"
    return f"SELECT {neutral(table, (key, column))} FROM {name} WHERE ctid >= {first} LIMIT %s"


@lru_cache(maxsize=512)
def live(table: sa.Table) -> str:
    bound = f" WHERE {quote(DELETED_AT)} IS NULL" if DELETED_AT in table.columns else ""
    return f"SELECT {neutral(table, primary_key(table))} FROM {quote(table.name)}{bound}"


@lru_cache(maxsize=512)
def page(table: sa.Table, columns: tuple[str, ...], bounded: bool) -> str:
    keys = primary_key(table)
    marks = ", ".join(f"%s::{column_type(table, name)}" for name in keys)
    bound = f" WHERE ({_names(keys)}) > ({marks})" if bounded else ""
    wanted = neutral(table, (*keys, *columns))
    return f"SELECT {wanted} FROM {quote(table.name)}{bound} ORDER BY {_names(keys)} LIMIT %s"


@lru_cache(maxsize=512)
def delete(table: sa.Table, soft: bool) -> str:
    name = quote(table.name)
    if not soft:
        return f"DELETE FROM {name} WHERE {_keys_in(table)}"
    mark = quote(DELETED_AT)
    return f"UPDATE {name} SET {mark} = %s::timestamptz WHERE {mark} IS NULL AND {_keys_in(table)}"
