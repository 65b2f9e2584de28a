"""The definitions of a bench's workspace, with resources that talk to the sandbox in process and on its clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.signalsmith.client import SignalSmithClient
from rally_pipeline.signalsmith.defs import build_defs
from rally_pipeline.signalsmith.defs.resource import SignalSmithResource
from rally_pipeline.signalsmith.refresh import CatalogRefresh
from rally_pipeline.signalsmith.run_history import RunHistory
from rally_pipeline.signalsmith.runs import SyncRunner
from tests.signalsmith.bench import Bench

_BENCHES: dict[str, Bench] = {}


class BenchResource(SignalSmithResource):
    """The resource on a bench: no sockets, no waiting."""

    home: str

    @property
    def bench(self) -> Bench:
        return _BENCHES[self.home]

    @contextmanager
    def client(self, *, tick: bool = False) -> Iterator[SignalSmithClient]:
        yield self.bench.client

    @contextmanager
    def runner(self, warehouse: WarehouseResource, notice: Any) -> Iterator[SyncRunner]:
        bench = self.bench
        yield SyncRunner(bench.warehouse, bench.client, clock=bench.local, notice=notice)

    @contextmanager
    def refresh(self, warehouse: WarehouseResource, *, tick: bool = False) -> Iterator[CatalogRefresh]:
        bench = self.bench
        yield CatalogRefresh(bench.settings, bench.client, bench.warehouse, bench.local)

    @contextmanager
    def history(self, warehouse: WarehouseResource) -> Iterator[RunHistory]:
        self.bench.runner()
        yield RunHistory(self.bench.warehouse, self.bench.local)


class Location:
    """What Dagster loads for a bench, and an instance of its own."""

    def __init__(self, bench: Bench, instance: dg.DagsterInstance) -> None:
        _BENCHES[str(bench.home)] = bench
        self.bench = bench
        self.instance = instance
        self.reload()

    def reload(self) -> None:
        """Load the definitions anew, as after a refresh."""
        settings = self.bench.settings
        environment = self.bench.sandbox.environment("http://127.0.0.1:9")
        resources = {
            "signalsmith": BenchResource(
                api_url=environment["SIGNALSMITH_API_URL"],
                api_token="unused",
                workspace_id=environment["SIGNALSMITH_WORKSPACE_ID"],
                home=str(self.bench.home),
            ),
            "warehouse": WarehouseResource(url=settings.warehouse),
        }
        built = build_defs(settings)
        self.definitions = dg.Definitions(
            assets=built.assets,
            jobs=built.jobs,
            schedules=built.schedules,
            sensors=built.sensors,
            resources=resources,
            executor=dg.in_process_executor,
        )
        self.repository = self.definitions.get_repository_def()

    def run(self, job: str, tags: Mapping[str, str] | None = None) -> dg.ExecuteInProcessResult:
        """Execute a job in process; a failure is part of the result."""
        found = self.definitions.resolve_job_def(job)
        return found.execute_in_process(instance=self.instance, tags=dict(tags or {}), raise_on_error=False)

    def tick(self, schedule: str, at: Any) -> Any:
        """What a schedule says at an instant."""
        context = dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=at, repository_def=self.repository
        )
        return self.repository.get_schedule_def(schedule).evaluate_tick(context)

    def sense(self, sensor: str, cursor: str | None = None) -> Any:
        """What a sensor says now."""
        definition = self.repository.get_sensor_def(sensor)
        resources = self.definitions.resources or {}
        with dg.build_sensor_context(
            instance=self.instance, cursor=cursor, repository_def=self.repository, resources=dict(resources)
        ) as context:
            return definition.evaluate_tick(context)

    def store(self, result: Any) -> None:
        """Store the asset events of a tick, as the daemon does before it saves the cursor."""
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)

    def materializations(self, slug: str) -> list[dg.AssetMaterialization]:
        """Newest first."""
        key = dg.AssetKey(["signalsmith", slug])
        records = self.instance.fetch_materializations(key, limit=1000).records
        return [found for record in records if (found := record.asset_materialization) is not None]

    def observations(self, slug: str) -> list[dg.AssetObservation]:
        """Newest first."""
        records = self.instance.fetch_observations(dg.AssetKey(["signalsmith", slug]), limit=1000).records
        return [
            found for record in records if (found := record.event_log_entry.asset_observation) is not None
        ]
