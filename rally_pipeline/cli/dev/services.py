"""The services of `dev`: the sandbox (if wanted) and `dagster dev`, started in order and ended together."""

from __future__ import annotations

import fcntl
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rally_pipeline.cli.dev.children import Child, start_child
from rally_pipeline.cli.dev.health import is_alive
from rally_pipeline.cli.dev.sandboxed import (
    SandboxOptions,
    begin_home,
    sandbox_home,
    start_first_sync,
    start_sandbox,
)
from rally_pipeline.cli.failures import CommandFailed, UserMistake
from rally_pipeline.cli.stopping import stop_requests
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.orchestration.home import (
    WORKSPACE,
    dagster_home,
    open_instance,
    prepare_home,
)
from rally_pipeline.settings import Settings

HOST = "127.0.0.1"
STARTUP_SECONDS = 180.0
CHECK_SECONDS = 0.5


def run_services(
    settings: Settings, *, port: int, sandbox: SandboxOptions | None, environment: dict[str, str]
) -> None:
    """Run until a signal comes or a service ends by itself.

    Raises:
        UserMistake: the port is taken, the home is in use, the folder cannot be written or is not ours.
        CommandFailed: a service ended unexpectedly or did not come up.
    """
    _require_free(port)
    home = sandbox_home(settings) if sandbox is not None else settings.home_path
    storage = home / "dagster" if sandbox is not None else dagster_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    url = f"http://{HOST}:{port}"
    # The address is where a changed SignalSmith catalog asks for the location to be loaded anew.
    environment |= {
        "RALLY_PIPELINE_HOME": str(home),
        "DAGSTER_HOME": str(storage),
        "DAGSTER_WEBSERVER_URL": url,
    }
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        stack.enter_context(exclusive(home))
        children: list[Child] = []
        if sandbox is not None:
            child, variables = start_sandbox(stack, sandbox, environment)
            children.append(child)
            environment |= begin_home(home, variables)
        _prepare_storage(storage)
        stack.callback(_end_runs, storage)
        children.append(_start_dagster(stack, port, environment))
        _announce_when_alive(url, stop, children)
        if sandbox is not None and not stop.is_set():
            start_first_sync(stack, home, environment)
        _wait(stop, children)
        remarks.print("Stopping…")


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserMistake(
                f"port {port} on {HOST} is in use ({error.strerror}): choose another with --port"
            ) from None


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Two sets of services on one home would run every schedule twice.

    Raises:
        UserMistake: another process has the home.
    """
    with (home / "dev.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserMistake(
                f"another `rally-pipeline dev` is using {home}: stop it first (or wait for the end of the demo)"
            ) from None
        yield


def _prepare_storage(storage: Path) -> None:
    prepare_home(storage)
    _end_runs(storage)


def _end_runs(storage: Path) -> None:
    """No run outlives the services that launched it; one that says otherwise would block its successors."""
    from rally_pipeline.orchestration.runs import end_orphaned_runs

    with open_instance(storage) as instance:
        end_orphaned_runs(instance)


def _start_dagster(stack: ExitStack, port: int, environment: Mapping[str, str]) -> Child:
    command = [sys.executable, "-m", "rally_pipeline.cli.dev.tethered", "dagster", "dev"]
    command += ["-w", str(WORKSPACE), "-h", HOST, "-p", str(port)]
    return start_child(stack, "dagster dev", command, environment)


def _announce_when_alive(url: str, stop: threading.Event, children: list[Child]) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while not is_alive(url):
        _require_running(children)
        if stop.wait(CHECK_SECONDS):
            return
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"Dagster did not come up within {STARTUP_SECONDS:.0f} seconds; its log stands above"
            )
    remarks.print(f"\n[bold]Dagster is up: {url}[/bold]   stop with Ctrl-C\n")


def _wait(stop: threading.Event, children: list[Child]) -> None:
    while not stop.wait(CHECK_SECONDS):
        _require_running(children)


def _require_running(children: list[Child]) -> None:
    for child in children:
        code = child.process.poll()
        if code is not None:
            raise CommandFailed(f"{child.name} ended unexpectedly (exit code {code}); its log stands above")
