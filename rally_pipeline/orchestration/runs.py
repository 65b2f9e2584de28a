"""Runs that are under way, so that a tick does not ask for what is being done already, and runs whose process is dead.

Dagster learns of a run's end from the run's own process. One that was killed is "started" for ever, and everything that
asks whether a run is under way would wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import dagster as dg

from rally_pipeline.processes import host_name, is_gone, started_at

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_IN_A_PROCESS = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

PROCESS_TAG = "rally_pipeline/process"
"""On runs of the command line: number, start and host of the process that executes them."""
LOCATION_TAG = ".dagster/repository"
"""Set by Dagster on runs that its services launch."""
LOCATION = "__repository__@rally_pipeline"


def process_tag() -> dict[str, str]:
    """The tag for a run that this process executes itself."""
    number = os.getpid()
    return {PROCESS_TAG: f"{number} {started_at(number) or ''} {host_name()}"}


def run_under_way(
    instance: dg.DagsterInstance, job_name: str, *, tags: Mapping[str, str] | None = None
) -> dg.DagsterRun | None:
    """The newest run of `job_name` (with these tags) that has not ended; None if there is none.

    One whose process is dead is ended here.
    """
    chosen = dg.RunsFilter(job_name=job_name, statuses=UNDER_WAY, tags=tags)
    for run in instance.get_runs(filters=chosen):
        if not _is_dead(run):
            return run
        _end(instance, run)
    return None


def end_dead_runs(instance: dg.DagsterInstance) -> int:
    """End the runs of the command line whose process is certainly gone; returns how many.

    Runs that Dagster's services launched name no process: they are theirs to end.
    """
    found = [run for run in instance.get_runs(filters=dg.RunsFilter(statuses=UNDER_WAY)) if _is_dead(run)]
    for run in found:
        _end(instance, run)
    return len(found)


def end_orphaned_runs(instance: dg.DagsterInstance) -> int:
    """End also the runs that services launched which do not run any more; returns how many.

    For one who knows that no other services work on this instance: nothing else would ever end such a run. Runs of
    other code locations are left alone.
    """
    ended = end_dead_runs(instance)
    launched = dg.RunsFilter(statuses=_IN_A_PROCESS, tags={LOCATION_TAG: LOCATION})
    for run in instance.get_runs(filters=launched):
        if PROCESS_TAG not in run.tags:
            _end(instance, run)
            ended += 1
    return ended


def describe(run: dg.DagsterRun) -> str:
    """For a skip reason: `rally_incremental 1a2b3c4d is started`."""
    return f"{run.job_name} {run.run_id[:8]} is {run.status.value.lower().replace('_', ' ')}"


def _is_dead(run: dg.DagsterRun) -> bool:
    number, _, rest = run.tags.get(PROCESS_TAG, "").partition(" ")
    started, _, host = rest.partition(" ")
    if not number.isdecimal():
        return False
    # An earlier version named only the number, on this host.
    return is_gone(host, int(number), started) if rest else started_at(int(number)) is None


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_canceled(
        run, message="Its process was killed. What it had committed stays; the next run goes on from there."
    )
