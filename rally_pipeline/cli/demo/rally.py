"""Rally's part of the demo: full extract, changes behind our back, the feed, and the comparison."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import TYPE_CHECKING

from rally_pipeline.cli.demo.stage import DemoLine, Stage
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.rally.entities import Entity

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import RallyMirror

CHANGED_SHARE = 0.05
LATE_SECONDS = 120.0
LATE_SHARE = 0.05
TIE_SHARE = 0.5
PAGE = 1000


@dataclass(slots=True)
class _Account:
    """What one table has seen and cost."""

    actions: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    fewest: int = 0
    seconds: float = 0.0


def perform(stage: Stage) -> list[DemoLine]:
    """Mirror, change, catch up, compare."""
    from rally_pipeline.rally.connection import open_mirror

    accounts = {entity: _Account() for entity in Entity}
    feed = _Account()
    with open_mirror(stage.settings, clock=stage.clock, progress=stage.progress) as mirror:
        for entity in Entity:
            _extract(stage, mirror, entity, accounts[entity])
        _change(stage)
        _read_feed(stage, mirror, feed)
        for entity in Entity:
            _settle(stage, mirror, entity, accounts[entity])
        return _compare(stage, mirror, accounts, feed)


def _extract(stage: Stage, mirror: RallyMirror, entity: Entity, account: _Account) -> None:
    begun = time.monotonic()
    result = mirror.extract(entity)
    stage.progress.finish(entity.stream)
    account.actions["inserted"] += result.inserted
    account.requests += result.cost.requests
    account.fewest += max(1, ceil(result.received / PAGE))
    account.seconds += time.monotonic() - begun


def _change(stage: Stage) -> None:
    """Inserts, updates and deletes; many share a second, and some enter the feed late."""
    rally = stage.sandbox.rally
    rally.switch(late_seconds=LATE_SECONDS, late_share=LATE_SHARE)
    number = max(20, round(sum(rally.counts().values()) * CHANGED_SHARE))
    done = rally.mutate(number, tie_share=TIE_SHARE)
    rally.mutate(1, kinds=["delete"], entities=["contacts"])
    kinds: Counter[str] = Counter()
    for name, count in done.items():
        kinds[name.partition(".")[2]] += count
    told = ", ".join(f"{count} {kind}s" for kind, count in sorted(kinds.items()))
    remarks.print(f"The source changes: {told}; {LATE_SHARE:.0%} of them show up late in its feed")


def _read_feed(stage: Stage, mirror: RallyMirror, account: _Account) -> None:
    """Once at once, and once more when the late entries are visible."""
    for wait in (0.0, LATE_SECONDS):
        stage.clock.sleep(wait)
        begun = time.monotonic()
        result = mirror.read_changes()
        account.actions["inserted"] += result.recorded
        account.requests += result.cost.requests
        account.fewest += max(1, ceil(result.recorded / PAGE))
        account.seconds += time.monotonic() - begun
    stage.progress.finish("rally.feed")


def _settle(stage: Stage, mirror: RallyMirror, entity: Entity, account: _Account) -> None:
    begun = time.monotonic()
    result = mirror.settle(entity)
    stage.progress.finish(entity.stream)
    account.actions.update(inserted=result.inserted, updated=result.updated, deleted=result.deleted)
    account.requests += result.cost.requests
    account.fewest += result.deleted + ceil((result.marks - result.deleted) / PAGE)
    account.seconds += time.monotonic() - begun


def _compare(
    stage: Stage, mirror: RallyMirror, accounts: dict[Entity, _Account], feed: _Account
) -> list[DemoLine]:
    lines = []
    rows = {table.table: table.rows for table in mirror.status().tables}
    for entity, account in accounts.items():
        found = mirror.verify(entity)
        stage.progress.finish(f"{entity.stream}.verify")
        # The source is quiet: what is known but not settled would be a difference too.
        lines.append(
            _line(entity.table_name, rows[entity.table_name], account, found.differences + found.in_flight)
        )
    recorded = mirror.status().changes_recorded
    return [
        *lines,
        _line("rally_changes", recorded, feed, abs(_entries_since_base(stage, mirror) - recorded)),
    ]


def _entries_since_base(stage: Stage, mirror: RallyMirror) -> int:
    """What the log must hold: entries of the source from the moment on that the full extract fixed."""
    base = mirror.coverage().base
    entries = stage.sandbox.rally.entries()
    return sum(base is not None and datetime.fromisoformat(entry["changedAt"]) > base for entry in entries)


def _line(table: str, rows: int, account: _Account, differences: int) -> DemoLine:
    actions = account.actions
    return DemoLine(
        table,
        rows,
        actions["inserted"],
        actions["updated"],
        actions["deleted"],
        account.requests,
        account.fewest,
        account.seconds,
        differences,
    )
