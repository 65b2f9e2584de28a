"""`rally-pipeline dev` as a person starts it, and what its UI is asked over GraphQL."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START_SECONDS = 180


class Services:
    """A running `dev`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, home: Path, log: Path) -> None:
        self.process = process
        self.port = port
        self.home = home
        self.log = log
        self.begun = time.monotonic()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def age(self) -> float:
        """Seconds since the command was given."""
        return time.monotonic() - self.begun

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def wait_for(self, what: str, condition: Callable[[], object], *, seconds: float) -> Any:
        """The first true value of `condition`; fails with the log where it does not come."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = condition()
            except OSError:
                found = None
            if found:
                return found
            assert self.process.poll() is None, f"dev ended: {self.tail()}"
            assert time.monotonic() < deadline, f"{what} not within {seconds:.0f} s: {self.tail()}"
            time.sleep(1)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def wait_until_up(self) -> None:
        """Until the command says so."""
        self.wait_for("Dagster", lambda: "Dagster is up" in self.tail(), seconds=START_SECONDS)

    def stop(self, number: int = signal.SIGTERM, *, seconds: float = 60) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def command(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Another command with the same home."""
        return subprocess.run(
            [sys.executable, "-m", "rally_pipeline.cli", *arguments],
            cwd=self.home.parent,
            env={**environment(self.home), **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def survivors(self) -> list[str]:
        """Command lines of processes that still have this home in their environment."""
        mark = f"RALLY_PIPELINE_HOME={self.home}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes():
                    found.append(
                        (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
            except OSError:
                continue  # it ended meanwhile, or is not ours
        return found


def environment(home: Path) -> dict[str, str]:
    """Nothing of ours leaks in but where programs are found."""
    system = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**system, "RALLY_PIPELINE_HOME": str(home), "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_services(folder: Path, *arguments: str) -> Iterator[Services]:
    """Start `dev` with a home below `folder`; whatever is left of it at the end is killed."""
    home, log, port = folder / "home", folder / "dev.log", free_port()
    command = [sys.executable, "-m", "rally_pipeline.cli", "dev", "--port", str(port), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment(home), stdout=output, stderr=output)
    services = Services(process, port, home, log)
    try:
        yield services
    finally:
        if process.poll() is None:
            services.stop(signal.SIGKILL)
