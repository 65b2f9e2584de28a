"""The Sell account as a Dagster resource. Set-up costs nothing: the client is built where a step uses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from rally_pipeline.orchestration.progress import step_progress
from rally_pipeline.orchestration.resources import SECRET, WarehouseResource
from rally_pipeline.orchestration.timing import given_clock
from rally_pipeline.processes import PATIENCE_SECONDS
from rally_pipeline.settings import DeleteMode, Settings, load_settings

if TYPE_CHECKING:
    from rally_pipeline.sell.client import SellClient
    from rally_pipeline.sell.mirror import SellMirror


class SellResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One Sell account, the device under which its queue is drained, and how it is mirrored.

    The steps of a run share one client: its connection, what it knows of the server's clock, and the token's rate.
    """

    api_url: str = Field(description="Host part, e.g. https://api.getbase.com")
    access_token: str = Field(
        description="Sent as Bearer; scopes `sync` for the queue, `read` and `profile` for looks.",
        repr=False,
        json_schema_extra=SECRET,
    )
    device_uuid: str = Field(
        description="The one consumer whose acknowledgements Sell remembers; belongs to one warehouse."
    )
    staleness_seconds: int = Field(
        default=30, description="How stale an answer can be; a look waits this long after its hint."
    )
    delete_mode: str = Field(
        default=DeleteMode.HARD.value, description="`hard` removes rows, `soft` marks them."
    )

    _client: "SellClient | None" = PrivateAttr(default=None)

    @staticmethod
    def of(settings: Settings) -> "SellResource":
        """The resource that the environment asks for; the token itself stays in the environment."""
        return SellResource(
            api_url=settings.sell_api_url,
            access_token=dg.EnvVar("SELL_ACCESS_TOKEN"),
            device_uuid=settings.sell_device_uuid or "",
            staleness_seconds=settings.rally_staleness_seconds,
            delete_mode=settings.delete_mode.value,
        )

    def settings(self, warehouse: WarehouseResource) -> Settings:
        """The environment's settings with the values of both resources in force."""
        return load_settings(
            sell_api_url=self.api_url,
            sell_access_token=self.access_token,
            sell_device_uuid=self.device_uuid,
            rally_staleness_seconds=self.staleness_seconds,
            delete_mode=self.delete_mode,
            warehouse_url=warehouse.url,
            warehouse_schema=warehouse.db_schema,
        )

    @contextmanager
    def mirror(
        self, warehouse: WarehouseResource, log: dg.DagsterLogManager | None = None
    ) -> "Iterator[SellMirror]":
        """The engine on an open warehouse with its tables in place; with `log`, a step's progress is reported.

        Raises:
            WarehouseError, SettingsError: one line says what is wrong.
        """
        from rally_pipeline.sell.client import connect
        from rally_pipeline.sell.connection import open_mirror
        from rally_pipeline.sell.mirror import no_progress

        settings = self.settings(warehouse)
        if self._client is None:
            self._client = connect(settings, clock=given_clock())
        progress = step_progress(log) if log is not None else no_progress
        with open_mirror(
            settings,
            client=self._client,
            progress=progress,
            clock=given_clock(),
            patience_seconds=PATIENCE_SECONDS,
        ) as mirror:
            yield mirror

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections at the end of the run or tick."""
        del context
        if self._client is not None:
            self._client.http.close()
            self._client = None
