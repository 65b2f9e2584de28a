"""Syncs and runs as the server keeps them, and how they look in an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

LIVE = ("pending", "running")


def instant(at: datetime | None) -> str | None:
    """ISO 8601 in UTC with `Z` and whole seconds, as every example of the documentation has it."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Plan:
    """What the next run of a sync will be like; a test may set each part."""

    queue_seconds: float
    run_seconds: float
    outcome: str
    rows: int
    failed_rows: int
    error: str
    stuck: str = ""
    """A status (`pending` or `running`) that the run never leaves by itself."""


@dataclass
class Run:
    """One run. `begins` is when it starts to work, `ends` when it is over; both None while nobody knows.

    `started_at` is shown equal to `created_at`, as in the documentation: it includes the time in the queue.
    """

    id: str
    sync_id: str
    workspace_id: str
    created: datetime
    triggered_by: str | None
    plan: Plan
    status: str = "pending"
    begins: datetime | None = None
    ends: datetime | None = None
    completed: datetime | None = None
    rows_synced: int = 0
    rows_failed: int = 0
    error_message: str = ""
    row_errors: list[dict[str, str]] = field(default_factory=list)

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    def shown(self, at: datetime) -> dict[str, Any]:
        """The run as an answer, its counts growing while it works."""
        synced, failed = self._progress(at)
        body: dict[str, Any] = {
            "id": self.id,
            "sync_id": self.sync_id,
            "workspace_id": self.workspace_id,
            "status": self.status,
            "started_at": instant(self.created),
            "completed_at": instant(self.completed),
            "rows_synced": synced,
            "rows_failed": failed,
            "error_message": self.error_message,
            "triggered_by": self.triggered_by,
            "created_at": instant(self.created),
        }
        if self.status == "pending":
            del body["completed_at"], body["error_message"]
        return body

    def _progress(self, at: datetime) -> tuple[int, int]:
        if self.status != "running" or self.begins is None:
            return self.rows_synced, self.rows_failed
        share = min(1.0, (at - self.begins).total_seconds() / max(self.plan.run_seconds, 1.0))
        return int(share * (self.plan.rows - self.plan.failed_rows)), int(share * self.plan.failed_rows)


@dataclass
class Sync:
    """One sync; `fields` are the API's own, in the order of the documentation."""

    fields: dict[str, Any]
    version: int = 0
    """Counts changes of status and schedule, so that a planned tick of an older schedule is void."""
    plans: list[Plan] = field(default_factory=list)
    """What the coming runs will be like, the next one first."""
    runs: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.fields["id"])

    @property
    def schedules_itself(self) -> bool:
        return self.fields.get("status") == "active" and bool(self.fields.get("schedule"))
