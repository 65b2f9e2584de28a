"""The SignalSmith workspace as a Dagster resource. Set-up costs nothing: the client is built where it is used."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from rally_pipeline.orchestration.resources import SECRET, WarehouseResource
from rally_pipeline.orchestration.timing import given_clock
from rally_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from rally_pipeline.signalsmith.client import SignalSmithClient
    from rally_pipeline.signalsmith.refresh import CatalogRefresh
    from rally_pipeline.signalsmith.run_history import RunHistory
    from rally_pipeline.signalsmith.run_request import Notice
    from rally_pipeline.signalsmith.runs import SyncRunner

_TICK_SECONDS = 30.0


class SignalSmithResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One workspace of SignalSmith."""

    api_url: str = Field(description="Base URL, e.g. https://acme.signalsmith.io/api/v1")
    api_token: str = Field(
        description="API key of the workspace, sent as Bearer; it must be allowed to trigger syncs.",
        repr=False,
        json_schema_extra=SECRET,
    )
    workspace_id: str = Field(description="Part of every path, and sent as X-Workspace-ID.")
    timezone: str | None = Field(
        default=None, description="Zone of the remote crons; empty: the workspace's setting."
    )

    @staticmethod
    def of(settings: Settings) -> "SignalSmithResource":
        """The resource that the environment asks for; the token itself stays in the environment."""
        return SignalSmithResource(
            api_url=settings.signalsmith_api_url or "",
            api_token=dg.EnvVar("SIGNALSMITH_API_TOKEN"),
            workspace_id=settings.signalsmith_workspace_id or "",
            timezone=settings.signalsmith_timezone,
        )

    def settings(self, warehouse: WarehouseResource | None = None) -> Settings:
        """The environment's settings with the values of the resources in force."""
        stored = (
            {}
            if warehouse is None
            else {
                "warehouse_url": warehouse.url,
                "warehouse_schema": warehouse.db_schema,
            }
        )
        return load_settings(
            signalsmith_api_url=self.api_url,
            signalsmith_api_token=self.api_token,
            signalsmith_workspace_id=self.workspace_id,
            signalsmith_timezone=self.timezone,
            **stored,
        )

    @contextmanager
    def client(self, *, tick: bool = False) -> "Iterator[SignalSmithClient]":
        """A client whose rate budget is shared with every other process of the home folder.

        `tick`: for a sensor, whose tick Dagster cuts off after a minute: the rate limit is not waited for then.
        """
        from rally_pipeline.http.retry import RetryPolicy
        from rally_pipeline.signalsmith.client import connect

        settings, clock = self.settings(), given_clock()
        client = (
            connect(settings, clock=clock, retry=RetryPolicy(total_seconds=_TICK_SECONDS))
            if tick
            else connect(settings, clock=clock)
        )
        try:
            yield client
        finally:
            client.http.close()

    @contextmanager
    def runner(self, warehouse: WarehouseResource, notice: "Notice") -> "Iterator[SyncRunner]":
        """What gets and follows runs; `notice` is told each turn of the way."""
        from rally_pipeline.signalsmith.runs import SyncRunner

        with self.client() as client, warehouse.open() as opened:
            yield SyncRunner(opened, client, clock=given_clock(), notice=notice)

    @contextmanager
    def refresh(self, warehouse: WarehouseResource, *, tick: bool = False) -> "Iterator[CatalogRefresh]":
        """What keeps the catalog up to date; `tick` as for `client`."""
        from rally_pipeline.signalsmith.refresh import CatalogRefresh

        with self.client(tick=tick) as client, warehouse.open() as opened:
            yield CatalogRefresh(self.settings(warehouse), client, opened, given_clock())

    @contextmanager
    def history(self, warehouse: WarehouseResource) -> "Iterator[RunHistory]":
        """The run history, its table in place."""
        from rally_pipeline.clock import SystemClock
        from rally_pipeline.signalsmith import tables
        from rally_pipeline.signalsmith.run_history import RunHistory

        with warehouse.open() as opened:
            opened.create_tables(tables.metadata)
            yield RunHistory(opened, SystemClock())
