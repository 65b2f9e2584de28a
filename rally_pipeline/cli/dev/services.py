"""The services of `dev`: the sandbox (if wanted) and `dagster dev`, started in order and ended together."""

from __future__ import annotations

import fcntl
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rally_pipeline.cli.dev.children import Child, start_child
from rally_pipeline.cli.failures import CommandFailed, UserMistake
from rally_pipeline.cli.sandbox import READY
from rally_pipeline.cli.stopping import stop_requests
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.orchestration.home import (
    WORKSPACE,
    dagster_home,
    end_orphaned_runs,
    open_instance,
    prepare_home,
)
from rally_pipeline.orchestration.windows import window_key
from rally_pipeline.settings import Settings

HOST = "127.0.0.1"
STARTUP_SECONDS = 120.0
CHECK_SECONDS = 0.5
CHANGES_PER_MINUTE = 60
FEED_DAYS = 3
SANDBOX_PACE = {
    # The sandbox answers with what it knows now and stamps changes at once: no lateness to wait for.
    "RALLY_FEED_OVERLAP_SECONDS": "30",
    "RALLY_STALENESS_SECONDS": "2",
    "RALLY_POLL_SECONDS": "10",
    "RALLY_AUTOSTART": "true",
}


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """What the sandbox is filled with."""

    records: int
    seed: int
    faults: str


def run_services(
    settings: Settings, *, port: int, sandbox: SandboxOptions | None, environment: dict[str, str]
) -> None:
    """Run until a signal comes or a service ends by itself.

    Raises:
        UserMistake: the port is taken, the home is in use, the folder cannot be written.
        CommandFailed: a service ended unexpectedly or did not come up.
    """
    _require_free(port)
    home = settings.home_path / "sandbox" if sandbox is not None else settings.home_path
    home.mkdir(parents=True, exist_ok=True)
    environment["RALLY_PIPELINE_HOME"] = str(home)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        stack.enter_context(_exclusive(home))
        children: list[Child] = []
        if sandbox is not None:
            environment.pop("DAGSTER_HOME", None)
            child, variables = _start_sandbox(stack, sandbox, environment)
            children.append(child)
            environment.update(variables)
            _begin_warehouse(home, environment, variables)
        storage = dagster_home(settings) if sandbox is None else home / "dagster"
        environment["DAGSTER_HOME"] = str(storage)
        prepare_home(storage)
        with open_instance(storage) as instance:
            end_orphaned_runs(instance)
        # where a changed SignalSmith catalog asks for the location to be loaded anew
        environment["DAGSTER_WEBSERVER_URL"] = f"http://{HOST}:{port}"
        children.append(_start_dagster(stack, port, environment))
        _announce_when_alive(port, stop, children)
        _wait(stop, children)
        remarks.print("Stopping…")
    with open_instance(storage) as instance:
        end_orphaned_runs(instance)


def _require_free(port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserMistake(
                f"port {port} on {HOST} is in use ({error.strerror}): choose another with --port"
            ) from None


@contextmanager
def _exclusive(home: Path) -> Iterator[None]:
    """Two sets of services on one home would run every schedule twice."""
    with (home / "dev.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserMistake(f"another `rally-pipeline dev` is using {home}: stop it first") from None
        yield


def _start_sandbox(
    stack: ExitStack, options: SandboxOptions, environment: Mapping[str, str]
) -> tuple[Child, dict[str, str]]:
    """Start the sandbox's process and read from it where it serves."""
    arguments = ["--port", "0", "--records", str(options.records), "--seed", str(options.seed)]
    arguments += [
        "--faults",
        options.faults,
        "--changes-per-minute",
        str(CHANGES_PER_MINUTE),
        "--end-with-stdin",
    ]
    child = start_child(
        stack,
        "sandbox",
        [sys.executable, "-m", "rally_pipeline.cli", "sandbox", *arguments],
        environment,
        talks=True,
    )
    variables: dict[str, str] = {}
    for line in child.lines():
        if line == READY:
            return child, variables
        name, _, value = line.partition("=")
        variables[name] = value
    raise UserMistake("the sandbox did not start; its message stands above")


def _begin_warehouse(home: Path, environment: dict[str, str], variables: Mapping[str, str]) -> None:
    """A fresh warehouse for fresh sandbox data, and a file that points other commands at both."""
    if not environment.get("WAREHOUSE_URL"):
        for path in home.glob("warehouse.db*"):
            path.unlink()
    marker = home / "feed_start"
    if not marker.exists():
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=FEED_DAYS)
        marker.write_text(window_key(day))
    # The grid of partitions is part of the run history, which outlives the sandbox's data.
    environment.update(SANDBOX_PACE, RALLY_FEED_START=marker.read_text().strip())
    kept = {**variables, **SANDBOX_PACE, "RALLY_PIPELINE_HOME": str(home)}
    kept["RALLY_FEED_START"] = environment["RALLY_FEED_START"]
    (home / "sandbox.env").write_text("".join(f"{name}={value}\n" for name, value in kept.items()))
    remarks.print(
        f"For other commands beside it:  set -a; . {home / 'sandbox.env'}", markup=False, soft_wrap=True
    )


def _start_dagster(stack: ExitStack, port: int, environment: Mapping[str, str]) -> Child:
    command = [
        sys.executable,
        "-m",
        "rally_pipeline.cli.dev.tethered",
        "dev",
        "-w",
        str(WORKSPACE),
        "-h",
        HOST,
        "-p",
        str(port),
    ]
    return start_child(stack, "dagster dev", command, environment)


def _announce_when_alive(port: int, stop: threading.Event, children: list[Child]) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while not _is_alive(port):
        _require_running(children)
        if stop.wait(CHECK_SECONDS):
            return
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"Dagster did not come up within {STARTUP_SECONDS:.0f} seconds; its log stands above"
            )
    remarks.print(f"\n[bold]Dagster is up: http://{HOST}:{port}[/bold]   stop with Ctrl-C\n")


def _is_alive(port: int) -> bool:
    """Whether the UI answers and has loaded the code location."""
    query = {"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}
    request = urllib.request.Request(
        f"http://{HOST}:{port}/graphql",
        data=json.dumps(query).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            data = json.load(answer)
    except (OSError, ValueError):
        return False
    return bool(data.get("data", {}).get("repositoriesOrError", {}).get("nodes"))


def _wait(stop: threading.Event, children: list[Child]) -> None:
    while not stop.wait(CHECK_SECONDS):
        _require_running(children)


def _require_running(children: list[Child]) -> None:
    for child in children:
        code = child.process.poll()
        if code is not None:
            raise CommandFailed(f"{child.name} ended unexpectedly (exit code {code}); its log stands above")
