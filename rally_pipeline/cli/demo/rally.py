"""Rally's part of the demo: full extract, changes behind our back, the feed, and the comparison."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from rally_pipeline.cli.demo.comparing import count_differences
from rally_pipeline.cli.demo.stage import Stage, TableLine
from rally_pipeline.cli.sync.rally import catch_up
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.rally.entities import Entity

CHANGED_SHARE = 0.05
LATE_SECONDS = 120.0
LATE_SHARE = 0.05
TIE_SHARE = 0.5


def perform(stage: Stage) -> list[TableLine]:
    """Mirror, change; the files' part changes the source once more, then catches up and compares."""
    catch_up(stage.session)
    _change(stage)
    return []


def catch_up_with_late_entries(stage: Stage) -> None:
    """Once at once, and once more when the late entries are visible."""
    for wait in (0.0, LATE_SECONDS):
        stage.clock.sleep(wait)
        catch_up(stage.session)


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


def compare(stage: Stage) -> list[TableLine]:
    """Every record of the tenant against its row, and the log of changes against the feed."""
    from rally_pipeline.rally.defs.names import RECONCILE

    stage.session.run(
        RECONCILE, ops={f"reconcile_{entity}": {"config": {"heal": False}} for entity in Entity}
    )
    lines = []
    for entity in Entity:
        records = {record["id"].lower(): record for record in stage.sandbox.rally.records(entity.value)}
        differing = count_differences(records, stage.tables.read(entity.table_name))
        lines.append(stage.line(entity.table_name, len(records), differing))
    recorded = {
        (
            row["id"],
            row["entity_type"],
            row["entity_id"],
            row["action"],
            datetime.fromisoformat(row["changed_at"]),
        )
        for row in stage.tables.read("rally_changes").values()
    }
    entries = _entries_since_base(stage)
    return [*lines, stage.line("rally_changes", len(entries), len(entries ^ recorded))]


def _entries_since_base(stage: Stage) -> set[tuple[int, str, str, str, datetime]]:
    """What the log must hold: entries of the source from the moment on that the full extract fixed."""
    from rally_pipeline.rally.connection import open_mirror

    with open_mirror(stage.session.settings) as mirror:
        base = mirror.coverage().base
    found = set()
    for entry in stage.sandbox.rally.entries():
        changed_at = datetime.fromisoformat(entry["changedAt"]).replace(microsecond=0)  # as the feed shows it
        if base is not None and changed_at > base:
            key = (entry["id"], entry["entityType"], entry["entityId"].lower(), entry["action"], changed_at)
            found.add(key)
    return found
