"""This package: the feed into the log, marks, and looks that settle them."""

from __future__ import annotations

from typing import Any

from benchmarks.first_load.ours import mirror_of
from rally_pipeline.rally.entities import Entity


def follow(*, url: str, database: str, since: str) -> dict[str, Any]:
    """What a scheduled run does: read the feed, settle the marks. Where to begin is in the warehouse."""
    with mirror_of(url, database, 1_000, staleness_seconds=0) as mirror:
        changes = mirror.read_changes()
        settled = mirror.settle(Entity.CONTACTS)
    return {
        "recorded": changes.recorded,
        "marks": settled.marks,
        "written": settled.inserted + settled.updated,
        "waiting": settled.waiting,
        "feed requests": changes.cost.requests,
        "list requests": settled.list_requests,
        "single requests": settled.single_requests,
    }
