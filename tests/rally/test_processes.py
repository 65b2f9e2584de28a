"""Real processes against a real port: killed at random moments, side by side, and weighed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from tests.rally.world import World

ROOT = Path(__file__).parents[2]
SETTINGS = {"RALLY_STALENESS_SECONDS": "0", "RALLY_FEED_OVERLAP_SECONDS": "30"}


@contextmanager
def serving(**options: Any) -> Iterator[SandboxServer]:
    switches = options.pop("switches", {})
    sandbox = Sandbox(clock=SandboxClock.running(), apis=["rally"], **{"limit_per_minute": None, **options})
    if switches:
        sandbox.rally.switch(**switches)
    with SandboxServer(sandbox) as server:
        yield server


def start(server: SandboxServer, url: str, *verbs: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **server.environment(), **SETTINGS, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.rally.worker", url, *verbs],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-2_000:]
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def differences(server: SandboxServer, url: str) -> list[str]:
    world = World(url, server.sandbox)
    try:
        return world.differences()
    finally:
        world.close()


@pytest.mark.fault("P1")
def test_killed_at_random_moments_it_loses_and_doubles_nothing(warehouse_url: str) -> None:
    dice = Random(20)
    with serving(records=4_000, switches={"max_limit": 50}) as server:
        for _ in range(8):
            process = start(server, warehouse_url, "extract", "changes", "settle")
            time.sleep(0.6 + dice.random() * 1.2)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            with server.sandbox.lock:
                server.sandbox.rally.mutate(40)
        finish(start(server, warehouse_url, "extract", "changes", "settle"))
        time.sleep(2.1)
        finish(start(server, warehouse_url, "changes", "settle"))
        assert differences(server, warehouse_url) == []


@pytest.mark.fault("P4")
def test_two_syncs_at_once_end_equal(warehouse_url: str) -> None:
    with serving(records=1_500, switches={"max_limit": 100}) as server:
        both = [start(server, warehouse_url, "extract", "changes", "settle") for _ in range(2)]
        for process in both:
            finish(process)
        server.sandbox.rally.mutate(60)
        time.sleep(2.1)
        both = [start(server, warehouse_url, "changes", "settle") for _ in range(2)]
        for process in both:
            finish(process)
        assert differences(server, warehouse_url) == []


def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path) -> None:
    """Small pages: how many of them wait to be committed at the peak hangs on the machine's load and must not weigh."""
    peaks: dict[int, int] = {}
    for number in (50_000, 200_000):
        with serving(records={"contacts": number}, switches={"max_limit": 200}) as server:
            url = f"sqlite:///{tmp_path / f'{number}.db'}"
            peaks[number] = int(finish(start(server, url, "extract", "contacts"))["peak_kb"])
    assert peaks[200_000] < 1.10 * peaks[50_000], peaks
    assert peaks[200_000] < 250 * 1024


@pytest.mark.parametrize("processes", [1, 3])
def test_the_rate_limit_is_used_to_its_edge_without_a_429(tmp_path: Path, processes: int) -> None:
    """Limit and window scaled down; the processes know nothing of each other but the server's headers.

    No run may be refused once. The time is judged by the best of three runs: whatever else the machine does in the
    meantime only ever adds to it.
    """
    ratios: list[float] = []
    while len(ratios) < 3 and min(ratios, default=9.0) > 1.05:
        ratios.append(_measure_pacing(tmp_path / str(len(ratios)), processes))
    assert min(ratios) <= 1.05, ratios


def _measure_pacing(folder: Path, processes: int) -> float:
    """Time taken over the shortest possible."""
    limit, window = 120, 4.0
    switches = {
        "max_limit": 12,
        "limit_per_minute": limit,
        "rate_window_seconds": window,
        "rate_aligned": True,
    }
    entities = ["contacts", "companies", "deals"][:processes]
    rows = 5_400 // processes
    with serving(records=dict.fromkeys(entities, rows), switches=switches) as server:
        time.sleep(window - time.time() % window)
        running = [start(server, f"sqlite:///{folder / name}.db", "extract", name) for name in entities]
        for process in running:
            assert finish(process)["throttled"] == 0
        log = [entry for entry in server.sandbox.log if entry.api == "rally"]
    assert all(entry.status != 429 for entry in log)
    used = Counter(int(entry.at.timestamp() // window) for entry in log)
    start_window, end_window = min(used), max(used)
    # The process may begin late in its first window; from then on the least number of windows is fixed.
    least = -(-(len(log) - used[start_window]) // limit)
    tail = [entry.at.timestamp() for entry in log if int(entry.at.timestamp() // window) == end_window]
    shortest = (start_window + least) * window + (tail[-1] - tail[0]) - log[0].at.timestamp()
    return float((log[-1].at - log[0].at).total_seconds() / shortest)
