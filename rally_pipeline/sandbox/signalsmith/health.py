"""The sync-health insight: the last state of every sync in one answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from .engine import RunEngine
from .store import Run, Sync, instant
from .validation import InvalidBodyError


def sync_health(engine: RunEngine, at: datetime, days: str | None) -> dict[str, Any]:
    """Figures over the last `days` (default 7). Raises `InvalidBodyError`."""
    if days is not None and not days.isdecimal():
        raise InvalidBodyError("days must be a number")
    since = at - timedelta(days=int(days or 7))
    rows = [_row(engine, sync, since) for sync in engine.syncs.values()]
    statuses = [row["status"] for row in rows]
    return {
        "total_syncs": len(rows),
        "active_syncs": statuses.count("active"),
        "healthy_syncs": sum(row["last_run_status"] == "completed" for row in rows),
        "failing_syncs": sum(row["last_run_status"] == "failed" for row in rows),
        "paused_syncs": statuses.count("paused"),
        "syncs": rows,
    }


def _row(engine: RunEngine, sync: Sync, since: datetime) -> dict[str, Any]:
    runs = [engine.runs[run_id] for run_id in sync.runs if engine.runs[run_id].created >= since]
    ended = [run for run in runs if not run.is_live]
    failed = [run for run in ended if run.status == "failed"]
    return {
        "sync_id": sync.fields["id"],
        "sync_name": sync.fields["name"],
        "status": sync.fields["status"],
        "last_run_status": runs[-1].status if runs else None,
        "last_run_at": instant(runs[-1].created) if runs else None,
        "success_rate": round(1 - len(failed) / len(ended), 2) if ended else 0,
        "total_runs": len(runs),
        "failed_runs": len(failed),
        "avg_duration_seconds": round(sum(map(_seconds, ended)) / len(ended)) if ended else 0,
        "total_rows_synced": sum(run.rows_synced for run in ended),
    }


def _seconds(run: Run) -> float:
    return (run.completed - run.created).total_seconds() if run.completed else 0.0
