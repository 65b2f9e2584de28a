"""What is asked for when a run is wanted, how patient one is, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from rally_pipeline.http.client import Usage
from rally_pipeline.signalsmith.options import Ownership, SyncOptions
from rally_pipeline.signalsmith.records import Run, Sync

logger = logging.getLogger(__name__)

TRIGGERED, ATTACHED, ADOPTED, ELSEWHERE = "triggered", "attached", "adopted", "elsewhere"
"""How Dagster came to a run."""


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """How patient one request is, in seconds.

    Attributes:
        ownership: who may start the run.
        grace_seconds: after its tick SignalSmith has this long to start the run by itself.
        settle_seconds: after a lost answer a run has this long to appear in the list.
        deadline_seconds: from the run's creation to its end; always on.
        first_poll_seconds, poll_growth, longest_poll_seconds: pauses between looks at the run.
    """

    ownership: Ownership = Ownership.ATTACH
    grace_seconds: float = 90.0
    settle_seconds: float = 30.0
    deadline_seconds: float = 6 * 3600.0
    first_poll_seconds: float = 5.0
    poll_growth: float = 1.5
    longest_poll_seconds: float = 30.0

    @staticmethod
    def of(options: SyncOptions) -> RunPolicy:
        """The policy that a sync's options ask for."""
        return RunPolicy(
            ownership=options.ownership,
            grace_seconds=float(options.grace_seconds),
            deadline_seconds=60.0 * options.deadline_minutes,
        )


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run is wanted. The same `key` again means the same run.

    Attributes:
        tick: the scheduled instant; None for a run that somebody wants now.
        zone, cron: how the tick came about; they matter on the days when the clocks change.
        not_before: data changed then, so a run that was at work earlier does not do.
        dagster_run_id: who follows the run, for the history.
    """

    sync_id: str
    key: str
    tick: datetime | None = None
    zone: str = "UTC"
    cron: str = ""
    not_before: datetime | None = None
    dagster_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A run that ended as completed. `origin`: triggered, attached or adopted; `polls` looks were taken at it;
    `waited_for` is a run that had to end first."""

    run: Run
    sync: Sync | None
    origin: str
    polls: int
    usage: Usage
    waited_for: str | None = None

    def counts(self) -> dict[str, int | float]:
        """Numbers for metadata."""
        return {
            "rows_synced": self.run.rows_synced,
            "rows_failed": self.run.rows_failed,
            "seconds": self.run.seconds or 0.0,
            "polls": self.polls,
            "requests": self.usage.requests,
            "throttled": self.usage.throttled,
            "waited_seconds": self.usage.waited_seconds,
        }


Notice = Callable[[str], None]
"""Told one line at each turn of the way."""


def log_notice(line: str) -> None:
    """The notice that goes to the log."""
    logger.info(line)
