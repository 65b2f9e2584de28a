"""The rate limit with real processes, over real sockets, by the request log of the sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer

LIMIT = 250
WINDOW = 4.0
WORK = 600


def shortest_time(moments: list[float], work: int) -> float:
    """Seconds in which `work` requests can be done from the first moment on: all of the limit at once in each window,
    and the rest of the last window at the speed that this run reached in its first one.
    """
    start = moments[0] // WINDOW * WINDOW
    windows = (work - 1) // LIMIT
    first = [moment for moment in moments if moment < start + WINDOW]
    burst = (first[-1] - first[0]) / len(first)
    return start + windows * WINDOW - moments[0] + (work - windows * LIMIT) * burst


@pytest.mark.parametrize(("processes", "threads"), [(1, 1), (3, 1), (3, 4)])
def test_processes_share_the_limit_to_its_edge_without_a_refusal(processes: int, threads: int) -> None:
    sandbox = Sandbox(
        clock=SandboxClock.running(),
        records=40,
        limit_per_minute=LIMIT,
        rally={"rate_window_seconds": WINDOW},
        apis=["rally"],
    )
    with SandboxServer(sandbox) as server:
        url = server.environment()["RALLY_API_URL"]
        key = server.environment()["RALLY_API_KEY"]
        share = [WORK // processes] * processes
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.http.pace_worker", url, str(count), str(threads), key],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for count in share
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        while time.time() % WINDOW > WINDOW / 2:  # a start near the end of a window would measure luck
            time.sleep(0.01)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        used = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
        log = list(sandbox.log)
    moments = [entry.at.timestamp() for entry in log]
    refused = [entry for entry in log if entry.status != 200]
    assert refused == []
    assert [usage["throttled"] for usage in used] == [0] * processes
    assert len(log) == WORK
    assert moments[-1] - moments[0] <= 1.05 * shortest_time(moments, WORK)
