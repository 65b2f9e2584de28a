"""Checks that more than one room returns with its materialisations. Each says what it saw, in numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table

    from rally_pipeline.warehouse import Transaction

KEYS = "keys_unique_and_present"
QUARANTINE = "nothing_newly_quarantined"
MARKS = "marks_not_overdue"
ONE_WRITER = "one_writer_at_a_time"
_RECENT = timedelta(days=1)

_DESCRIPTIONS = {
    KEYS: "Every row has a primary key and no two rows share one.",
    QUARANTINE: "This run put no record aside as unreadable or refused by the warehouse.",
    MARKS: "No known change waits longer for its look than the bound.",
    ONE_WRITER: "Within the last day no writer found that another process had taken its stream over (A6).",
}


def spec(name: str, asset: Sequence[str], description: str | None = None) -> dg.AssetCheckSpec:
    """The declaration of a check on `asset`; the shared ones bring their own description."""
    return dg.AssetCheckSpec(
        name=name, asset=dg.AssetKey(list(asset)), description=description or _DESCRIPTIONS[name]
    )


def keys(transaction: Transaction, table: Table, asset: Sequence[str]) -> dg.AssetCheckResult:
    """Whether the database enforces the key; where it does not (a restored or hand-made table), every row is counted.

    The first costs the same for any number of rows, so it can be asked after each run.
    """
    from sqlalchemy import func, inspect, select

    (key,) = table.primary_key.columns
    inspector = inspect(transaction.connection)
    constrained = inspector.get_pk_constraint(table.name)["constrained_columns"]
    # SQLite lets a primary key be NULL unless the column says otherwise.
    required = {column["name"] for column in inspector.get_columns(table.name) if not column["nullable"]}
    enforced = constrained == [key.name] and key.name in required
    passed, found = enforced, {}
    if not enforced:
        rows, present, distinct = transaction.rows(
            select(func.count(), func.count(key), func.count(key.distinct())).select_from(table)
        )[0]
        passed = rows == present == distinct
        found = {"without_key": rows - present, "doubled": present - distinct}
    return dg.AssetCheckResult(
        check_name=KEYS,
        asset_key=dg.AssetKey(list(asset)),
        passed=passed,
        metadata={"enforced_by_the_database": enforced, **found},
    )


def quarantine(newly: int, open_now: int, asset: Sequence[str]) -> dg.AssetCheckResult:
    """A warning: the record is kept and can be replayed, and everything else was stored."""
    return dg.AssetCheckResult(
        check_name=QUARANTINE,
        asset_key=dg.AssetKey(list(asset)),
        passed=newly == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=None if newly == 0 else f"{newly} put aside; see `rally-pipeline quarantine`",
        metadata={"newly_quarantined": newly, "quarantined": open_now},
    )


def marks(
    open_marks: int, oldest_seconds: float | None, bound_seconds: float, asset: Sequence[str]
) -> dg.AssetCheckResult:
    """Known changes that are not in the table yet, against how long that may take."""
    age = oldest_seconds or 0.0
    return dg.AssetCheckResult(
        check_name=MARKS,
        asset_key=dg.AssetKey(list(asset)),
        passed=open_marks == 0 or age <= bound_seconds,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "open_marks": open_marks,
            "oldest_mark_seconds": age,
            "bound_seconds": float(bound_seconds),
        },
    )


def one_writer(
    transaction: Transaction, stream: str, asset: Sequence[str], *, now: datetime | None = None
) -> dg.AssetCheckResult:
    """A warning: the fence refused what the other process wanted to write, so nothing is wrong in the tables."""
    from rally_pipeline.warehouse.fences import read_violations

    found = read_violations(transaction, [stream])
    recent = found.last is not None and (now or datetime.now(UTC)) - found.last < _RECENT
    return dg.AssetCheckResult(
        check_name=ONE_WRITER,
        asset_key=dg.AssetKey(list(asset)),
        passed=not recent,
        severity=dg.AssetCheckSeverity.WARN,
        description="a process worked on after its lease had run out: it was stopped or slow for minutes"
        if recent
        else None,
        metadata={"fence_violations": found.count},
    )
