"""The loopback server in a process of its own, and what the benchmark asks of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class RunningSource:
    """A server that is up; its API begins at `url`."""

    def __init__(self, port: int) -> None:
        self._root = f"http://127.0.0.1:{port}"
        self.url = f"{self._root}/api/v1"

    def reset(self) -> None:
        """Every record as at first; the request counts begin anew."""
        self._control("/-/reset")

    def change(self, count: int, entries: int | None = None) -> None:
        """Change `count` records, with `entries` entries in the feed (one each by default)."""
        self._control(f"/-/change?count={count}&entries={entries or count}")

    def requests(self) -> int:
        """Requests since the last reset, by the server's own count."""
        return sum(self._control("/-/requests")["requests"].values())

    def sent(self) -> int:
        """Bytes of its answers since the last reset, headers included."""
        return int(self._control("/-/requests")["sent"])

    def _control(self, target: str) -> Any:
        with urllib.request.urlopen(self._root + target, timeout=60) as answer:
            return json.load(answer)


@contextlib.contextmanager
def running_source(rows: int) -> Iterator[RunningSource]:
    """A server with `rows` contacts for the block."""
    command = [sys.executable, "-m", "benchmarks.source.server", str(rows)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield RunningSource(int(process.stdout.readline()))
        process.stdin.close()
        process.wait(timeout=10)
