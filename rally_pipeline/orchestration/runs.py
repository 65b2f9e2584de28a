"""Runs that are under way, so that a tick does not ask for what is being done already."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def run_under_way(
    instance: dg.DagsterInstance, job_name: str, *, tags: Mapping[str, str] | None = None
) -> dg.DagsterRun | None:
    """The newest run of `job_name` (with these tags) that has not ended; None if there is none."""
    chosen = dg.RunsFilter(job_name=job_name, statuses=UNDER_WAY, tags=tags)
    runs = instance.get_runs(filters=chosen, limit=1)
    return runs[0] if runs else None


def describe(run: dg.DagsterRun) -> str:
    """For a skip reason: `rally_incremental 1a2b3c4d is started`."""
    return f"{run.job_name} {run.run_id[:8]} is {run.status.value.lower().replace('_', ' ')}"
