"""Runs that are under way, and runs whose process was killed: nothing waits for the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from rally_pipeline.orchestration import runs
from rally_pipeline.orchestration.home import open_instance, prepare_home
from rally_pipeline.orchestration.runs import end_dead_runs, end_orphaned_runs, process_tag, run_under_way

STARTED = dg.DagsterRunStatus.STARTED
CANCELED = dg.DagsterRunStatus.CANCELED
JOB = "rally_incremental"


@dg.op
def nothing() -> None:
    pass


@dg.job(name=JOB)
def some_job() -> None:
    nothing()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    prepare_home(tmp_path)
    with open_instance(tmp_path) as opened:
        yield opened


def tag_of_a_dead_process() -> dict[str, str]:
    """As a process that has ended since tagged its run."""
    script = "from rally_pipeline.orchestration.runs import process_tag; print(*process_tag().values())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {runs.PROCESS_TAG: done.stdout.strip()}


def tag_of_a_reused_number() -> dict[str, str]:
    """This process has the number, but began at another time."""
    number, _, host = process_tag()[runs.PROCESS_TAG].split(" ")
    return {runs.PROCESS_TAG: f"{number} 1 {host}"}


def tag_of_another_host() -> dict[str, str]:
    return {runs.PROCESS_TAG: "999999999 1 elsewhere/boot/1"}


def begin(
    instance: dg.DagsterInstance, tags: dict[str, str], status: dg.DagsterRunStatus = STARTED
) -> dg.DagsterRun:
    return instance.create_run_for_job(some_job, tags=tags, status=status)


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


@pytest.mark.fault("P7")
@pytest.mark.parametrize(
    ("tags", "dead"),
    [
        (tag_of_a_dead_process, True),
        (tag_of_a_reused_number, True),
        (lambda: {runs.PROCESS_TAG: "999999999"}, True),
        (process_tag, False),
        (lambda: {runs.PROCESS_TAG: str(os.getpid())}, False),
        (tag_of_another_host, False),
        (dict, False),
    ],
    ids=[
        "dead",
        "number reused",
        "dead, earlier version",
        "alive",
        "alive, earlier version",
        "elsewhere",
        "launched",
    ],
)
@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, STARTED])
def test_only_a_run_whose_process_is_certainly_gone_is_ended(instance, tags, dead, status) -> None:
    run = begin(instance, tags(), status)
    assert end_dead_runs(instance) == dead
    assert status_of(instance, run) == (CANCELED if dead else status)


@pytest.mark.fault("P7")
def test_a_run_of_a_killed_process_is_not_under_way_and_hides_no_live_one(instance) -> None:
    alive = begin(instance, process_tag())
    dead = begin(instance, tag_of_a_dead_process())
    found = run_under_way(instance, JOB)
    assert found is not None
    assert found.run_id == alive.run_id
    assert status_of(instance, dead) == CANCELED
    assert run_under_way(instance, "another_job") is None


@pytest.mark.fault("P7")
def test_services_that_start_alone_end_what_earlier_ones_launched_here_and_nothing_of_others(
    instance,
) -> None:
    orphan = begin(instance, {runs.LOCATION_TAG: runs.LOCATION})
    foreign = begin(instance, {runs.LOCATION_TAG: "__repository__@another_project"})
    by_script = begin(instance, {})
    command = begin(instance, process_tag())
    waiting = begin(instance, {runs.LOCATION_TAG: runs.LOCATION}, dg.DagsterRunStatus.NOT_STARTED)
    assert end_orphaned_runs(instance) == 1
    assert status_of(instance, orphan) == CANCELED
    for other in (foreign, by_script, command):
        assert status_of(instance, other) == STARTED
    assert status_of(instance, waiting) == dg.DagsterRunStatus.NOT_STARTED
