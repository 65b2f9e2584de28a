"""Where the demo plays: a sandbox on loopback, a clock that runs fast, a warehouse of its own, and Dagster.

The runs go into the history that `rally-pipeline dev --sandbox` shows.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rally_pipeline.cli.demo.measuring import MeasuredSession, TableWatch
from rally_pipeline.cli.own_folder import empty_own_folder
from rally_pipeline.cli.terminal import StreamBars
from rally_pipeline.settings import FEED_START_FORMAT, Settings, load_settings

if TYPE_CHECKING:
    from rally_pipeline.sandbox.application import Sandbox
    from rally_pipeline.sandbox.clock import SandboxClock

SPEED = 60.0
"""Sandbox seconds in a real one: the waits for late entries and for evidence stay as long as in production."""
HEAD_START = timedelta(hours=6)
"""The sandbox's clock begins so long ago: Dagster knows no partition of an hour that is still to come."""


class TableLine(NamedTuple):
    """One table or file in the summary. `source`: what it must hold, as counted in the sandbox; `differences`: rows
    that are missing, too many, or different in any value. A file is written once: nothing in it is updated."""

    table: str
    rows: int
    inserted: int | None
    updated: int | None
    deleted: int | None
    source: int
    differences: int


@dataclass(frozen=True, slots=True)
class Stage:
    """What every part works with."""

    sandbox: Sandbox
    clock: SandboxClock
    session: MeasuredSession
    tables: TableWatch
    progress: StreamBars
    warehouse_path: Path

    def line(self, table: str, source: int, differences: int) -> TableLine:
        """The summary's line of a table of the warehouse."""
        seen = self.tables.changes[table]
        counts = (seen["inserted"], seen["updated"], seen["deleted"])
        return TableLine(table, self.tables.rows(table), *counts, source, differences)


DemoPart = Callable[[Stage], list[TableLine]]
"""One system's part: plays its story and reports its tables."""


@contextmanager
def open_stage(settings: Settings, *, records: int, seed: int) -> Iterator[Stage]:
    """Serve a fresh sandbox on loopback; what an earlier demo left is removed.

    Raises:
        UserMistake: the folder holds files of yours, or `dev --sandbox` is at work there.
    """
    from rally_pipeline.cli.dev.sandboxed import feed_start, sandbox_home
    from rally_pipeline.cli.dev.services import exclusive
    from rally_pipeline.cli.sync.session import open_session
    from rally_pipeline.orchestration.timing import timed_by
    from rally_pipeline.sandbox.application import Sandbox
    from rally_pipeline.sandbox.clock import SandboxClock
    from rally_pipeline.sandbox.server import SandboxServer

    home, shared = settings.home_path / "demo", sandbox_home(settings)
    shared.mkdir(parents=True, exist_ok=True)
    clock = SandboxClock.running(datetime.now(UTC) - HEAD_START, speed=SPEED)
    sandbox = Sandbox(seed=seed, records=records, clock=clock)
    # Its scheduler would run syncs between two looks, and whose runs are counted could not be told.
    sandbox.control("signalsmith", "switch", {"scheduler": False})
    with ExitStack() as stack:
        stack.enter_context(exclusive(shared))
        empty_own_folder(home)
        server = stack.enter_context(SandboxServer(sandbox))
        variables = demo_environment(home, server.environment())
        variables |= {"RALLY_FEED_START": feed_start(shared), "DAGSTER_HOME": str(shared / "dagster")}
        stack.enter_context(environment(variables))
        stack.enter_context(timed_by(clock))
        progress = stack.enter_context(StreamBars())
        with _without_remarks():
            session = stack.enter_context(open_session(load_settings(), progress, wait=True))
        tables = TableWatch(home / "warehouse.db")
        measured = MeasuredSession.of(session, sandbox, tables)
        yield Stage(sandbox, clock, measured, tables, progress, home / "warehouse.db")


@contextmanager
def _without_remarks() -> Iterator[None]:
    """That SignalSmith's catalog is still to be fetched is no news: the demo does it."""
    logger = logging.getLogger("rally_pipeline")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def demo_environment(home: Path, sandbox: Mapping[str, str]) -> dict[str, str]:
    """Every setting, so that nothing of what the user has set counts: the defaults, then the sandbox."""
    defaults = {name.upper(): _text(field.default) for name, field in Settings.model_fields.items()}
    return {
        **defaults,
        **sandbox,
        "RALLY_PIPELINE_HOME": str(home),
        "IMPORTS_DIR": str(home / "imports"),
        "EXPORTS_DIR": str(home / "exports"),
        "SYNCS_DIR": str(home / "syncs"),
    }


def _text(value: object) -> str:
    """A setting's value as it would stand in the environment; empty for none."""
    if value is None:
        return ""
    return value.strftime(FEED_START_FORMAT) if isinstance(value, datetime) else str(value)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The variables in this process's environment, where Dagster's resources look for secrets."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
