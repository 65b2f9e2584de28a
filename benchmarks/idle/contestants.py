"""What is measured when there is nothing to do."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from benchmarks.first_load.ours import mirror_of


def poll(*, url: str, database: str, polls: int) -> dict[str, Any]:
    """The sensor's look at the feed, again and again in one process, as the daemon does it."""
    with mirror_of(url, database, 1_000) as mirror:
        mirror.poll()
        cpu, began = time.process_time(), time.perf_counter()
        for _ in range(polls):
            if mirror.poll().entries:
                raise AssertionError("the feed was to have nothing new")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    return {
        "CPU ms a poll": round(cpu / polls * 1000, 2),
        "wall ms a poll": round(wall / polls * 1000, 2),
        "polls": polls + 1,
    }


def execute(*, command: list[str]) -> dict[str, Any]:
    """A command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-2_000:]}")
    return {}
