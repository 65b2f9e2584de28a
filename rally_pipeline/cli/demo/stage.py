"""Where the demo plays: a sandbox on loopback, a clock that runs fast, and a warehouse of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rally_pipeline.cli.own_folder import empty_own_folder
from rally_pipeline.cli.terminal import StreamBars
from rally_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from rally_pipeline.sandbox.application import Sandbox
    from rally_pipeline.sandbox.clock import SandboxClock

SPEED = 60.0
"""Sandbox seconds in a real one: the waits for late entries and for evidence stay as long as in production."""


class DemoLine(NamedTuple):
    """One table in the summary. `fewest`: requests that no client could do without; `seconds`: real ones."""

    table: str
    rows: int
    inserted: int
    updated: int
    deleted: int
    requests: int
    fewest: int
    seconds: float
    differences: int


@dataclass(frozen=True, slots=True)
class Stage:
    """What every part works with. Pass `clock` to the engines: it is the sandbox's own."""

    sandbox: Sandbox
    settings: Settings
    clock: SandboxClock
    progress: StreamBars
    warehouse_path: Path


DemoPart = Callable[[Stage], list[DemoLine]]
"""One system's part: plays its story and reports its tables."""


@contextmanager
def open_stage(home: Path, *, records: int, seed: int) -> Iterator[Stage]:
    """Serve a fresh sandbox on loopback; what an earlier demo left is removed."""
    from rally_pipeline.sandbox.application import Sandbox
    from rally_pipeline.sandbox.clock import SandboxClock
    from rally_pipeline.sandbox.server import SandboxServer

    empty_own_folder(home)
    warehouse_path = home / "warehouse.db"
    clock = SandboxClock.running(speed=SPEED)
    sandbox = Sandbox(seed=seed, records=records, clock=clock)
    with SandboxServer(sandbox) as server, StreamBars() as progress:
        variables = {name.lower(): value for name, value in server.environment().items()}
        settings = load_settings(
            **variables,
            rally_pipeline_home=home,
            warehouse_url=None,
            warehouse_schema=None,
            rally_feed_overlap_seconds=300,
            rally_staleness_seconds=30,
            rally_pipeline_read_only=False,
        )
        yield Stage(sandbox, settings, clock, progress, warehouse_path)
