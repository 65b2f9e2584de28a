"""One piece of work in a fresh process: how long it took, what it cost, and how much memory it needed at most."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One measurement. `wall` and `cpu` are seconds from the end of the imports to the end of the work."""

    wall: float
    cpu: float
    """Of the contestant's own process and its children."""
    peak_mb: float
    """Peak resident memory, by the operating system."""
    imports_mb: float
    """The part of it that was there when the imports were done and nothing had begun."""
    server_cpu: float = 0.0
    """Of the database server's processes, in the same time."""
    requests: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the contestant reports about its work."""

    @property
    def work_mb(self) -> float:
        """Memory beyond the imports."""
        return self.peak_mb - self.imports_mb


class NotFinished(Exception):
    """The time limit ended the work."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"not finished in {limit:.0f} s")
        self.limit = limit


class ContestantFailed(Exception):
    """The contestant's process ended with an error; the message holds its last words."""


class WrongOutcome(Exception):
    """A contestant finished, but the database does not hold what it should."""


def run_contestant(
    entry: str,
    arguments: Mapping[str, Any],
    *,
    limit: float,
    environment: Mapping[str, str] | None = None,
) -> Sample:
    """Call `entry` ("module:function") with `arguments` as keywords, in a process of its own.

    Args:
        entry: the function returns a mapping of facts, which must be JSON.
        arguments: must be JSON as well.
        limit: seconds after which the process is ended.
        environment: variables on top of this process's own.

    Raises:
        NotFinished: the limit was reached.
        ContestantFailed: the function raised.
    """
    command = [sys.executable, "-m", "benchmarks.measuring.stage", entry, json.dumps(dict(arguments))]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise NotFinished(limit) from None
    if process.returncode:
        raise ContestantFailed(f"{entry}: {errors[-2_000:]}")
    return Sample(**json.loads(output.splitlines()[-1]))
