"""The Rally tenant as a Dagster resource. Set-up costs nothing: the client is built where a step uses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict

import dagster as dg
from pydantic import Field, PrivateAttr

from rally_pipeline.orchestration.progress import step_progress
from rally_pipeline.orchestration.resources import SECRET, WarehouseResource
from rally_pipeline.orchestration.timing import given_clock
from rally_pipeline.processes import PATIENCE_SECONDS
from rally_pipeline.settings import DeleteMode, Settings, load_settings

if TYPE_CHECKING:
    from rally_pipeline.http.retry import RetryPolicy
    from rally_pipeline.http.transport import Limits
    from rally_pipeline.rally.client import RallyClient
    from rally_pipeline.rally.mirror import RallyMirror
    from rally_pipeline.warehouse import Warehouse


class TickBounds(TypedDict):
    """Bounds of a call that together with one repetition stays below half a minute."""

    retry: "RetryPolicy"
    limits: "Limits"


class RallyResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One Rally tenant and how it is mirrored.

    The steps of a run share one client (its connection, what it knows of the server's clock and of the rate limit) and
    one open warehouse.
    """

    api_url: str = Field(description="Base URL, e.g. https://acme.rallycrm.io/api/v1")
    api_key: str = Field(
        description="Sent as X-Api-Key; scope `read` is enough for the mirror.",
        repr=False,
        json_schema_extra=SECRET,
    )
    overlap_seconds: int = Field(
        default=300, description="How far each read of the feed goes back for late entries."
    )
    staleness_seconds: int = Field(
        default=30, description="How stale an answer can be; a delete waits this long."
    )
    delete_mode: str = Field(
        default=DeleteMode.HARD.value, description="`hard` removes rows, `soft` marks them."
    )

    _client: "RallyClient | None" = PrivateAttr(default=None)
    _warehouse: "Warehouse | None" = PrivateAttr(default=None)

    @staticmethod
    def of(settings: Settings) -> "RallyResource":
        """The resource that the environment asks for; the key itself stays in the environment."""
        return RallyResource(
            api_url=settings.rally_api_url or "",
            api_key=dg.EnvVar("RALLY_API_KEY"),
            overlap_seconds=settings.rally_feed_overlap_seconds,
            staleness_seconds=settings.rally_staleness_seconds,
            delete_mode=settings.delete_mode.value,
        )

    def settings(self, warehouse: WarehouseResource) -> Settings:
        """The environment's settings with the values of both resources in force."""
        return load_settings(
            rally_api_url=self.api_url,
            rally_api_key=self.api_key,
            rally_feed_overlap_seconds=self.overlap_seconds,
            rally_staleness_seconds=self.staleness_seconds,
            delete_mode=self.delete_mode,
            warehouse_url=warehouse.url,
            warehouse_schema=warehouse.db_schema,
        )

    @contextmanager
    def mirror(
        self, warehouse: WarehouseResource, log: dg.DagsterLogManager | None = None, *, tick: bool = False
    ) -> "Iterator[RallyMirror]":
        """The engine on an open warehouse with its tables in place; with `log`, a step's progress is reported.

        `tick`: for a sensor, whose tick Dagster cuts off after a minute: calls give up well before, and another writer
        is not waited for.

        Raises:
            WarehouseError, SettingsError: one line says what is wrong.
        """
        from rally_pipeline.rally.client import connect
        from rally_pipeline.rally.mirror import MirrorPolicy, RallyMirror, no_progress

        settings = self.settings(warehouse)
        if self._client is None:
            self._client = (
                connect(settings, **_tick_bounds()) if tick else connect(settings, clock=given_clock())
            )
        with self._open(settings) as opened:
            yield RallyMirror(
                opened,
                self._client,
                MirrorPolicy.of(settings),
                clock=given_clock(),
                progress=step_progress(log) if log is not None else no_progress,
                patience_seconds=0.0 if tick else PATIENCE_SECONDS,
            )

    @contextmanager
    def _open(self, settings: Settings) -> "Iterator[Warehouse]":
        """The warehouse with Rally's tables; stays open for the next step unless something went wrong."""
        from rally_pipeline.rally.tables import metadata
        from rally_pipeline.warehouse import Warehouse

        try:
            if self._warehouse is None:
                self._warehouse = Warehouse.open(
                    settings.warehouse, schema=settings.warehouse_schema, clock=given_clock()
                )
                self._warehouse.create_tables(metadata)
            yield self._warehouse
        except BaseException:
            self._close_warehouse()
            raise

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections at the end of the run or tick."""
        del context
        if self._client is not None:
            self._client.http.close()
            self._client = None
        self._close_warehouse()

    def _close_warehouse(self) -> None:
        if self._warehouse is not None:
            self._warehouse.close()
            self._warehouse = None


def _tick_bounds() -> "TickBounds":
    from rally_pipeline.http.retry import RetryPolicy
    from rally_pipeline.http.transport import Limits

    return {
        "retry": RetryPolicy(max_attempts=2, total_seconds=10.0),
        "limits": Limits(connect_seconds=5.0, read_seconds=15.0, total_seconds=20.0),
    }
