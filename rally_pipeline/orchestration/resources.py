"""The warehouse as a Dagster resource. Each room's resource lives in the room's `defs`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field
from pydantic.config import JsonDict

from rally_pipeline.orchestration.timing import given_clock
from rally_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Warehouse

SECRET: JsonDict = {"dagster__is_secret": True}
"""For `Field(json_schema_extra=…)`: the UI masks the value. Add `repr=False`, which keeps it out of `repr`."""


class WarehouseResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The SQL database that the mirrors are kept in. Nothing is opened before a step asks for it."""

    url: str | None = Field(
        default=None,
        description="SQLAlchemy URL: sqlite:///… or postgresql+psycopg://… (it may hold a password); empty for the file"
        " warehouse.db in the home folder.",
        repr=False,
        json_schema_extra=SECRET,
    )
    db_schema: str | None = Field(
        default=None, description="PostgreSQL schema for all tables; empty for the database's default."
    )

    @staticmethod
    def of(settings: Settings) -> "WarehouseResource":
        """The resource that the environment asks for. A URL with a password stays in the environment."""
        url = dg.EnvVar("WAREHOUSE_URL") if settings.warehouse_url is not None else None
        return WarehouseResource(url=url, db_schema=settings.warehouse_schema)

    @contextmanager
    def open(self) -> "Iterator[Warehouse]":
        """The open warehouse, closed at the end of the block, also when the run is cancelled.

        Raises:
            WarehouseError, SettingsError: it cannot be opened; one line says why.
        """
        from rally_pipeline.warehouse import Warehouse

        settings = load_settings(warehouse_url=self.url, warehouse_schema=self.db_schema)
        with Warehouse.open(
            settings.warehouse, schema=settings.warehouse_schema, clock=given_clock()
        ) as warehouse:
            yield warehouse
