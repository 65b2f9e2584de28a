"""What a bulk statement needs to know of its table, worked out once per table and list of columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any

import msgspec
import sqlalchemy as sa

from rally_pipeline.warehouse import values
from rally_pipeline.warehouse.errors import RowRefused
from rally_pipeline.warehouse.types import BigInteger, Double, ExactDecimal, Instant, Json

Value = str | int | float | bool | None
Row = tuple[Value, ...]
Key = Any
"""One value for a primary key of one column, a tuple of values for more."""

DELETED_AT = "_deleted_at"
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_GUARDS = (Instant, BigInteger, Double)


@dataclass(frozen=True)
class UpsertResult:
    """What became of a batch; the numbers and lists add up to the rows given.

    `older` are keys whose stored row has a greater guard and was kept; `rejected` are (row, reason) that the
    database refuses; `duplicates` counts rows that lost against another row of the same key in the batch.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    older: list[Key] = field(default_factory=list)
    rejected: list[tuple[Row, str]] = field(default_factory=list)
    duplicates: int = 0

    @property
    def written(self) -> int:
        """Rows that cost a write."""
        return self.inserted + self.updated


@dataclass(frozen=True)
class Plan:
    """One table, the columns of the rows in order, and which of them do what."""

    table: sa.Table
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    guard: str | None
    touch: frozenset[str]
    key_of: Callable[[Row], Key]
    guard_of: Callable[[Row], Value] | None
    content_of: Callable[[Row], Row]
    """The values of the compared columns."""
    clean: bool = False
    """The texts of the rows are known to hold neither U+0000 nor lone surrogates."""

    @cached_property
    def nullable(self) -> tuple[int, ...]:
        """Places of the columns that are NULL where a statement leaves them out."""
        described = [self.table.columns[name] for name in self.columns]
        return tuple(
            place
            for place, column in enumerate(described)
            if column.nullable and not column.primary_key and column.server_default is None
        )

    @property
    def compared(self) -> tuple[str, ...]:
        """Columns whose difference makes a row different."""
        return tuple(name for name in self.columns if name not in self.keys and name not in self.touch)

    @property
    def assigned(self) -> tuple[str, ...]:
        """Columns that an update writes."""
        return tuple(name for name in self.columns if name not in self.keys)

    @property
    def marks(self) -> tuple[str, ...]:
        """The table's deletion mark if the rows do not speak of it: writing a row clears it."""
        return (DELETED_AT,) if DELETED_AT in self.table.columns and DELETED_AT not in self.columns else ()

    def distinct(self, rows: Sequence[Row]) -> Sequence[Row]:
        """One row per key: the greatest guard wins, among equals (and without a guard) the last."""
        key_of, guard_of = self.key_of, self.guard_of
        by_key = {key_of(row): row for row in rows}
        if len(by_key) == len(rows):
            return rows
        if guard_of is None:
            return list(by_key.values())
        by_key.clear()
        for row in rows:
            rival = by_key.get(key_of(row))
            if rival is None or not greater(guard_of(rival), guard_of(row)):
                by_key[key_of(row)] = row
        return list(by_key.values())

    def first_of_each(self, rows: Sequence[Row]) -> dict[Key, Row]:
        """One row per key, the first, in the order given."""
        first: dict[Key, Row] = {}
        for row in rows:
            first.setdefault(self.key_of(row), row)
        return first


def greater(left: Any, right: Any) -> bool:
    """Whether one guard is greater than the other; an absent one has no say."""
    return left is not None and right is not None and left > right


def primary_key(table: sa.Table) -> tuple[str, ...]:
    """Names of the primary key's columns in order."""
    names = tuple(column.name for column in table.primary_key.columns)
    if not names:
        raise ValueError(f"table {table.name} has no primary key")
    return names


@lru_cache(maxsize=512)
def plan_rows(
    table: sa.Table,
    columns: tuple[str, ...],
    guard: str | None = None,
    touch: frozenset[str] = frozenset(),
    *,
    clean: bool = False,
) -> Plan:
    """Check the columns against the table and work the plan out.

    Raises:
        ValueError: an unknown or repeated column, a missing key column, or a guard that cannot be compared.
    """
    keys = primary_key(table)
    unknown = [name for name in columns if name not in table.columns]
    if unknown or len(set(columns)) != len(columns):
        raise ValueError(f"table {table.name}: unknown or repeated columns {unknown or list(columns)}")
    missing = [name for name in keys if name not in columns]
    if missing:
        raise ValueError(f"table {table.name}: the key columns {missing} must be among the columns")
    if guard is not None:
        comparable = guard in columns and isinstance(table.columns[guard].type, _GUARDS)
        if not comparable or guard in keys or guard in touch:
            raise ValueError(
                f"table {table.name}: {guard} cannot guard: it must be a compared column with an instant or a number"
            )
    positions = {name: number for number, name in enumerate(columns)}
    compared = [positions[name] for name in columns if name not in keys and name not in touch]
    return Plan(
        table=table,
        columns=columns,
        keys=keys,
        guard=guard,
        touch=touch,
        key_of=itemgetter(*(positions[name] for name in keys)),
        guard_of=itemgetter(positions[guard]) if guard is not None else None,
        content_of=_tuple_getter(compared),
        clean=clean,
    )


def _tuple_getter(positions: Sequence[int]) -> Callable[[Row], Row]:
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda row: tuple(row[position] for position in positions)


def check_row(plan: Plan, row: Row) -> str | None:
    """Why the row does not fit its columns, naming the column and not the value; None if nothing is seen."""
    if len(row) != len(plan.columns):
        return f"{len(row)} values for {len(plan.columns)} columns"
    for name, value in zip(plan.columns, row, strict=True):
        column = plan.table.columns[name]
        if value is None:
            if not column.nullable and column.server_default is None:
                return f"column {name}: a value is required"
            continue
        problem = _check_value(column.type, value)
        if problem is not None:
            return f"column {name}: {problem}"
    return None


def refusal(plan: Plan, row: Row, reason: str) -> RowRefused:
    """The error of a row that the database refuses."""
    return RowRefused(f"table {plan.table.name}, key {plan.key_of(row)!r}: {reason}")


def _check_value(kind: sa.types.TypeEngine[Any], value: Value) -> str | None:
    if isinstance(value, str):
        if values.clean_text(value) is not value:
            return "the text has U+0000 or a lone surrogate"
        if isinstance(kind, Instant):
            return _unlike(values.instant_text, value, "not an instant such as 2026-01-31T00:00:00.000000Z")
        if isinstance(kind, ExactDecimal):
            return _unlike(values.decimal_text, value, "not a plain decimal number")
        if isinstance(kind, Json):
            return _unlike_json(value)
    if isinstance(kind, BigInteger):
        return _check_integer(value)
    return None


def _unlike(convert: Callable[[str], str], value: str, problem: str) -> str | None:
    try:
        return None if convert(value) == value else problem
    except ValueError:
        return problem


def _unlike_json(value: str) -> str | None:
    try:
        msgspec.json.decode(value)
    except msgspec.MsgspecError:
        return "not JSON"
    return "the JSON has U+0000" if _ESCAPED_NUL.search(value) else None


def _check_integer(value: Value) -> str | None:
    try:
        number = int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "not a whole number"
    return None if -(2**63) <= number < 2**63 else "the number does not fit into 64 bits"
