"""A workspace in the sandbox, and processes that work on it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.token_budget import TokenBudget
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.signalsmith.api import ACCOUNT_ID, TOKEN, WORKSPACE_ID
from rally_pipeline.sandbox.transport import SandboxTransport
from rally_pipeline.signalsmith.client import RATES, SignalSmithClient
from rally_pipeline.signalsmith.run_request import RunOutcome, RunPolicy, RunRequest
from rally_pipeline.signalsmith.runs import SyncRunner
from rally_pipeline.warehouse import Warehouse

BASE_URL = "http://127.0.0.1/signalsmith/api/v1"
START = datetime(2026, 3, 2, 8, 1, tzinfo=UTC)


class Killed(BaseException):
    """The process died. Not an Exception, so nothing can handle it."""


class Workspace:
    """One sync with all its runs. `caused` is told of every run that a call of ours started."""

    def __init__(
        self, folder: Path, seed: int, *, schedule: str, skew_seconds: float, **switches: Any
    ) -> None:
        self.folder = folder
        self.clock = SandboxClock(START)
        options = {"limit_per_minute": None, "limit_per_second": None, "syncs": 0, "switches": switches}
        self.sandbox = Sandbox(seed=seed, apis=["signalsmith"], clock=self.clock, signalsmith=options)
        self.transport = SandboxTransport(self.sandbox)
        self.local = self.clock.skewed(skew_seconds)
        self.lives = 0
        made = self.control("add_sync", name="Own sync", schedule=schedule, status="active")
        self.sync_id = str(made["id"])
        self.caused: Callable[[str], None] = _nobody
        self._start = self.api.engine.start
        self.api.engine.start = self._note_start

    @property
    def api(self) -> Any:
        return self.sandbox.signalsmith

    def control(self, verb: str, **body: Any) -> Any:
        return self.sandbox.control("signalsmith", verb, body)

    def _note_start(self, sync: Any, at: datetime, triggered_by: str | None) -> Any:
        """In place of the engine's own: a trigger by our token passes here before its run exists."""
        if triggered_by != ACCOUNT_ID:
            return self._start(sync, at, triggered_by)
        live = [run.id for run in self.api.engine.live(sync)]
        run = self._start(sync, at, triggered_by)
        self.caused_among(run.id, live)
        return run

    def caused_among(self, run_id: str, live: list[str]) -> None:
        self.live_before = live
        self.caused(run_id)


class Process:
    """One process with its own connection and client; `crash` is the step at which it dies."""

    def __init__(self, workspace: Workspace, *, crash: int = 0) -> None:
        self.workspace = workspace
        self.crash = crash
        self.steps: list[str] = []
        self.between: tuple[int, Callable[[], None]] | None = None
        workspace.lives += 1
        url = f"sqlite:///{workspace.folder / 'warehouse.db'}"
        self.warehouse = Warehouse.open(url, clock=workspace.local, step=self.step)
        http = HttpClient(
            system="signalsmith",
            base_url=BASE_URL,
            headers={"Authorization": f"Bearer {TOKEN}", "X-Workspace-ID": WORKSPACE_ID},
            secrets=[TOKEN],
            budget=TokenBudget(RATES, clock=workspace.local),
            clock=workspace.local,
            random=Random(workspace.lives),
            step=self.step,
            transport=workspace.transport,
        )
        self.client = SignalSmithClient(http, WORKSPACE_ID)

    def run(self, request: RunRequest, policy: RunPolicy) -> RunOutcome:
        """What the Dagster run of this process does."""
        runner = SyncRunner(
            self.warehouse, self.client, clock=self.workspace.local, step=self.step, notice=_say_nothing
        )
        return runner.run(request, policy)

    def step(self, name: str) -> None:
        """The hook of every call and commit."""
        self.steps.append(name)
        if self.crash and len(self.steps) >= self.crash:
            raise Killed(name)
        if self.between is not None and len(self.steps) >= self.between[0] and _may_stand_still(name):
            (_, action), self.between = self.between, None
            action()

    def close(self) -> None:
        self.warehouse.close()


def _may_stand_still(name: str) -> bool:
    """Whether another process may come between here.

    Not within a transaction: it would wait in real time for the database's lock. Not with the trigger's first byte
    on its way: a process that is stopped just there for longer than its lease cannot be kept from sending.
    """
    return not name.endswith(("-commit", "/trigger:before"))


def _nobody(_run_id: str) -> None:
    """Nobody wants to know."""


def _say_nothing(_line: str) -> None:
    """Notices are for people."""
