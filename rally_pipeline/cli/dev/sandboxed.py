"""`dev` with the sandbox: its process, a home that begins anew with it, and the pace that fits it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rally_pipeline.cli.dev.children import Child, start_child
from rally_pipeline.cli.environment import assignment
from rally_pipeline.cli.failures import UserMistake
from rally_pipeline.cli.own_folder import empty_own_folder
from rally_pipeline.cli.sandbox import READY
from rally_pipeline.cli.sync import CATCH_UPS
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.orchestration.windows import window_key
from rally_pipeline.settings import Settings

CHANGES_PER_MINUTE = 60
FEED_DAYS = 3
FEED_START = "feed_start"
KEPT = ("dagster", FEED_START, "dev.lock")
SOURCING = "For other commands beside it: "
PACE = {
    # The sandbox answers with what it knows now and stamps changes at once: no lateness to wait for.
    "RALLY_FEED_OVERLAP_SECONDS": "30",
    "RALLY_STALENESS_SECONDS": "2",
    "RALLY_POLL_SECONDS": "10",
    "SELL_DRAIN_CRON": "* * * * *",
    "RALLY_AUTOSTART": "true",
}


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """What the sandbox is filled with."""

    records: int
    seed: int
    faults: str


def start_sandbox(
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
        name, _, value = "".join(shlex.split(line)).partition("=")
        variables[name] = value
    raise UserMistake("the sandbox did not start; its message stands above")


def begin_home(home: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Empty the home of what belongs to an earlier sandbox's data; returns the environment for the services.

    The run history stays, and with it the grid of the feed's partitions. A file in the home lets other commands work
    beside the services.

    Raises:
        UserMistake: the folder was not made by us.
    """
    empty_own_folder(home, keep=KEPT)
    environment = {
        **variables,
        **PACE,
        "RALLY_FEED_START": feed_start(home),
        "RALLY_PIPELINE_HOME": str(home),
    }
    kept = home / "sandbox.env"
    kept.touch(mode=0o600)
    lines = (assignment(name, value) for name, value in environment.items())
    kept.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    remarks.print(f"{SOURCING} set -a; . {shlex.quote(str(kept))}", markup=False, soft_wrap=True)
    return environment


def sandbox_home(settings: Settings) -> Path:
    """The home for services that work on the sandbox: apart from that of your accounts."""
    return settings.home_path / "sandbox"


def feed_start(home: Path) -> str:
    """First hour of the feed's partitions; as long as the run history is kept, so is the grid that it refers to."""
    marker = home / FEED_START
    if not marker.exists():
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=FEED_DAYS)
        marker.write_text(window_key(day))
    return marker.read_text().strip()


def start_first_sync(stack: ExitStack, home: Path, environment: Mapping[str, str]) -> Child:
    """One catch-up of the systems that would wait for their schedules; Rally's sensor begins by itself."""
    systems = [name for name, _ in CATCH_UPS if name != "rally"]
    output = stack.enter_context((home / "first_sync.log").open("w"))
    command = [sys.executable, "-m", "rally_pipeline.cli.dev.tethered", "rally-pipeline", "sync", *systems]
    return start_child(stack, "first sync", command, environment, output=output)
