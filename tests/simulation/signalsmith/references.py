"""Reference triggers: one request followed to the end of its run, under several habits of the remote."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from rally_pipeline.signalsmith.errors import TriggerUnknown
from rally_pipeline.signalsmith.run_request import RunOutcome, RunPolicy, RunRequest
from tests.simulation.script import Passage, Reference
from tests.simulation.signalsmith.workspace import START, Killed, Process, Workspace
from tests.simulation.storage import quick_storage

TICK = START + timedelta(minutes=9)
_HABITS: dict[str, Any] = {"scheduler": False, "queue_seconds": 2, "run_seconds": 100}


def _reference(*, schedule: str = "", fault: str = "", runs: int = 1, **habits: Any) -> Reference:
    """A tick and a request by hand, in this order; `runs` remote runs are right for both together."""

    def live(folder: Path, crashes: Sequence[int]) -> Passage:
        with quick_storage(0):
            world = Workspace(folder, 1, schedule=schedule, skew_seconds=-90, **{**_HABITS, **habits})
            if fault:
                world.sandbox.faults.add(fault, method="POST", path="*/trigger")
            world.clock.advance((TICK - world.clock.now()).total_seconds())
            return _passage(world, crashes, runs)

    return live


def _passage(world: Workspace, crashes: Sequence[int], runs: int) -> Passage:
    lived: list[int] = []
    names: tuple[str, ...] = ()
    for crash in (*crashes, 0):
        process = Process(world, crash=crash)
        try:
            with closing(process):
                _work(world, process)
        except Killed:
            pass  # the next process begins from the beginning
        lived.append(len(process.steps))
        names = names or tuple(process.steps)
    with closing(Process(world)) as last:
        outcomes = _work(world, last)
    return Passage(tuple(lived), names, tuple(_differences(world, outcomes, runs)))


def _work(world: Workspace, process: Process) -> list[RunOutcome]:
    """What each process does: the tick, and then a request by hand."""
    requests = [
        RunRequest(world.sync_id, "tick:1", tick=TICK, cron="*/10 * * * *", dagster_run_id="d1"),
        RunRequest(world.sync_id, "run:2", dagster_run_id="d2"),
    ]
    return [_follow(process, request) for request in requests]


def _follow(process: Process, request: RunRequest) -> RunOutcome:
    """Two attempts without a trace are all that one request has: then a person looks, and asks anew."""
    try:
        return process.run(request, RunPolicy())
    except TriggerUnknown:
        return process.run(replace(request, key=f"{request.key}:again"), RunPolicy())


def _differences(world: Workspace, outcomes: Sequence[RunOutcome], runs: int) -> list[str]:
    found: list[str] = []
    started = [run_id for _, _, run_id in world.api.engine.started]
    if len(started) != runs:
        found.append(f"{len(started)} remote runs for two requests, not {runs}")
    if len({outcome.run.id for outcome in outcomes}) != len(outcomes):
        found.append("two requests share a run")
    for outcome in outcomes:
        remote = world.api.engine.runs[outcome.run.id]
        ours = (outcome.run.status, outcome.run.rows_synced, outcome.run.rows_failed)
        if ours != (remote.status, remote.rows_synced, remote.rows_failed):
            found.append(f"{outcome.run.id} is {ours} here, {remote.status} there")
    return found


REFERENCES: dict[str, Reference] = {
    "trigger": _reference(runs=2),
    "lost-answer": _reference(runs=2, fault="lost_answer"),
    "not-applied": _reference(runs=2, fault="status_503"),
    "lagging-list": _reference(runs=2, fault="applied_500", list_lag_seconds=20.0, run_order="shuffled"),
    "own-schedule": _reference(
        runs=2, schedule="10 8 * * *", scheduler=True, scheduler_delay_seconds=45.0, paginate=True
    ),
}
"""By name; each is the life of two requests."""
