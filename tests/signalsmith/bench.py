"""A workspace in the sandbox with everything that talks to it, on one virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rally_pipeline.clock import Step, no_step
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.transport import SandboxTransport
from rally_pipeline.settings import Settings, load_settings
from rally_pipeline.signalsmith.client import SignalSmithClient, connect
from rally_pipeline.signalsmith.refresh import CatalogRefresh
from rally_pipeline.signalsmith.run_request import RunPolicy, RunRequest
from rally_pipeline.signalsmith.runs import SyncRunner
from rally_pipeline.warehouse import Warehouse

URL = "http://127.0.0.1:9"
START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


class Bench:
    """`sandbox` and its `clock`; a `client`, a `warehouse`, and notices of the runner in `told`."""

    def __init__(
        self,
        folder: Path,
        *,
        warehouse_url: str | None = None,
        start: datetime = START,
        step: Step = no_step,
        skew_seconds: float = 0.0,
        **options: Any,
    ) -> None:
        self.clock = SandboxClock(start)
        limits = {"limit_per_minute": None, "limit_per_second": None}
        self.sandbox = Sandbox(
            seed=7, apis=["signalsmith"], clock=self.clock, signalsmith={**limits, **options}
        )
        self.transport = SandboxTransport(self.sandbox)
        self.home = folder / "home"
        self.warehouse_url = warehouse_url or f"sqlite:///{self.home / 'warehouse.db'}"
        self.told: list[str] = []
        self.local = self.clock.skewed(skew_seconds)
        self.step = step
        self.client = self.connect()
        self._warehouse: Warehouse | None = None

    @property
    def settings(self) -> Settings:
        environment = {name.lower(): value for name, value in self.sandbox.environment(URL).items()}
        return load_settings(
            rally_pipeline_home=self.home,
            syncs_dir=self.home / "syncs",
            warehouse_url=self.warehouse_url,
            signalsmith_timezone=None,
            **environment,
        )

    @property
    def warehouse(self) -> Warehouse:
        if self._warehouse is None:
            self._warehouse = Warehouse.open(self.warehouse_url, clock=self.local, step=self._step)
        return self._warehouse

    @property
    def api(self) -> Any:
        return self.sandbox.signalsmith

    def connect(self) -> SignalSmithClient:
        return connect(self.settings, clock=self.local, step=self._step, transport=self.transport)

    def close(self) -> None:
        if self._warehouse is not None:
            self._warehouse.close()
            self._warehouse = None

    def control(self, verb: str, **body: Any) -> Any:
        return self.sandbox.control("signalsmith", verb, body)

    def switch(self, **switches: Any) -> None:
        self.control("switch", **switches)

    def sync_id(self, number: int = 0) -> str:
        found: str = list(self.api.engine.syncs)[number]
        return found

    def make_sync(self, **fields: Any) -> str:
        """A sync of its own, so that the demo's two do not disturb."""
        made: Mapping[str, Any] = self.control("add_sync", **{"name": "Own sync", "schedule": "", **fields})
        return str(made["id"])

    def started(self, sync_id: str) -> list[datetime]:
        """When each run of the sync was made, ever."""
        self.control("runs_started")
        return [at for at, owner, _ in self.api.engine.started if owner == sync_id]

    def run_ids(self, sync_id: str) -> list[str]:
        self.control("runs_started")
        return [run_id for _, owner, run_id in self.api.engine.started if owner == sync_id]

    def requests(self, path: str = "") -> list[tuple[str, str]]:
        """Requests so far as (method, path below the workspace)."""
        root = f"/signalsmith/api/v1/workspaces/{self.client.workspace_id}"
        return [
            (entry.method, entry.path.removeprefix(root)) for entry in self.sandbox.log if path in entry.path
        ]

    def refresh(self, *, accept_shrink: bool = False) -> Any:
        return CatalogRefresh(self.settings, self.client, self.warehouse, self.local).refresh(
            accept_shrink=accept_shrink
        )

    def runner(self) -> SyncRunner:
        return SyncRunner(
            self.warehouse, self.client, clock=self.local, step=self._step, notice=self.told.append
        )

    def run(self, sync_id: str, key: str = "run:1", policy: RunPolicy | None = None, **request: Any) -> Any:
        return self.runner().run(RunRequest(sync_id, key, **request), policy or RunPolicy())

    def at(self, moment: datetime) -> None:
        """Advance the clock to `moment`."""
        self.clock.advance((moment - self.clock.now()).total_seconds())

    def recover(self) -> None:
        """After a simulated crash: a new connection; the lease of the dead process (which has this one's number, so
        it looks alive) has run out."""
        self.step = no_step
        self.close()
        self.clock.advance(900)

    def before_request(self, number: int | None, action: Callable[..., object], **match: Any) -> None:
        self.sandbox.before(number, action, **match)

    def _step(self, name: str) -> None:
        self.step(name)
