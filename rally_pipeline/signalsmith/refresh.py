"""From the remote to the catalog: fetch, check each sync on its own, believe or not, write file and table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.http.client import Usage
from rally_pipeline.http.errors import ApiError
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith import catalog_file, tables
from rally_pipeline.signalsmith.catalog import (
    Catalog,
    Changes,
    Reading,
    build_catalog,
    compare,
    fingerprint,
    has_shrunk,
    label,
)
from rally_pipeline.signalsmith.catalog_table import store_catalog, stored_slugs
from rally_pipeline.signalsmith.client import SignalSmithClient
from rally_pipeline.signalsmith.errors import CatalogShrunk
from rally_pipeline.signalsmith.options import OptionsFile, read_options
from rally_pipeline.signalsmith.schedules import SchedulePlan, plan_all, zone_problem

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Warehouse

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """What a refresh found, as pairs of a sync and a text.

    Attributes:
        unscheduled: those without a schedule that fires, and why.
        refused_crons: of these, the ones that SignalSmith itself runs by a cron which Dagster cannot follow.
        warnings: what works but deserves a look.
        scheduled: how many have a schedule that fires.
    """

    catalog: Catalog
    changes: Changes
    unscheduled: tuple[tuple[str, str], ...]
    refused_crons: tuple[tuple[str, str], ...]
    warnings: tuple[tuple[str, str], ...]
    scheduled: int
    usage: Usage

    def lines(self) -> list[str]:
        """The report for a log or a terminal."""
        lists = {
            "added": self.changes.added,
            "changed": self.changes.changed,
            "gone": self.changes.gone,
            "returned": self.changes.returned,
            "removed": self.changes.removed,
        }
        found = [f"{kind}: {name}" for kind, names in lists.items() for name in names]
        found += [f"skipped: {skipped.name}: {skipped.reason}" for skipped in self.catalog.skipped]
        found += [f"no schedule: {name}: {reason}" for name, reason in self.unscheduled]
        return found + [f"note: {name}: {text}" for name, text in self.warnings]

    def counts(self) -> dict[str, int | float]:
        """Numbers for metadata."""
        return {
            "syncs": len(self.catalog.present),
            "scheduled": self.scheduled,
            "unscheduled": len(self.unscheduled),
            "skipped": len(self.catalog.skipped),
            **self.changes.counts(),
            "requests": self.usage.requests,
            "throttled": self.usage.throttled,
            "waited_seconds": self.usage.waited_seconds,
        }


class CatalogRefresh:
    """Keeps the catalog of one workspace up to date.

    Nothing is changed unless the whole list was read and is believed. The file is written before the table: the file
    is what Dagster loads, the table is for people and brings lost slugs back.
    """

    def __init__(
        self, settings: Settings, client: SignalSmithClient, warehouse: Warehouse, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._client = client
        self._warehouse = warehouse
        self._clock = clock or SystemClock()

    def refresh(self, *, accept_shrink: bool = False) -> RefreshResult:
        """Fetch and store.

        Raises:
            ApiError: the list could not be read; the old catalog stays.
            CatalogShrunk: more than half of the syncs are missing; the new list is set aside.
            WarehouseError, OSError: it could not be stored.
        """
        usage = self._client.http.usage
        self._warehouse.create_tables(tables.metadata)
        before = self._before()
        reading = self._read(before)
        after = build_catalog(reading, before)
        if has_shrunk(before, len(after.present)) and before is not None:
            if not accept_shrink:
                kept = catalog_file.set_aside(self._settings.home_path, after)
                raise CatalogShrunk(len(before.present), len(after.present), str(kept))
            after = msgspec.structs.replace(after, accepted_shrink=True)
        catalog_file.write_catalog(self._settings.home_path, after)
        catalog_file.forget_suspect(self._settings.home_path)
        options = read_options(self._settings.syncs_dir)
        plans = plan_all(after, options)
        with self._warehouse.transaction("signalsmith.catalog") as transaction:
            store_catalog(transaction, after, options, plans, self._clock.now())
        return _result(before, after, plans, options, self._client.http.usage - usage)

    def remote_fingerprint(self) -> str:
        """A digest of the list as it is now, to be compared with the catalog's; costs one list request."""
        return fingerprint(self._client.list_syncs())

    def _before(self) -> Catalog | None:
        loaded = catalog_file.load_catalog(self._settings.home_path, self._client.workspace_id)
        if loaded.problem and not loaded.is_missing:
            logger.warning("signalsmith: %s", loaded.problem)
        return None if loaded.is_missing else loaded.catalog

    def _read(self, before: Catalog | None) -> Reading:
        rows = self._client.list_syncs()
        models = self._models()
        zone, source = self._zone(before)
        at = self._client.server_time or self._clock.now()
        return Reading(
            rows=rows,
            at=at,
            workspace_id=self._client.workspace_id,
            api_url=self._settings.signalsmith_api_url or "",
            timezone=zone,
            timezone_source=source,
            models=models,
            known_slugs=self._stored_slugs(),
        )

    def _models(self) -> list[Mapping[str, Any]]:
        """Models are for lineage only: without them the catalog is still good, and keeps what it knew."""
        try:
            return self._client.list_models()
        except ApiError as error:
            logger.warning("signalsmith: models could not be read, lineage stays as it was: %s", error)
            return []

    def _zone(self, before: Catalog | None) -> tuple[str, str]:
        """Explicit setting, workspace setting, UTC. An unusable zone is kept: it stops schedules, not the catalog."""
        if self._settings.signalsmith_timezone:
            return self._settings.signalsmith_timezone, "SIGNALSMITH_TIMEZONE"
        try:
            zone = self._client.workspace_timezone()
        except ApiError as error:
            logger.warning("signalsmith: the workspace's time zone could not be read: %s", error)
            if before is not None and before.timezone_source != "default":
                return before.timezone, before.timezone_source
            zone = None
        return (zone, "workspace setting") if zone else ("UTC", "default")

    def _stored_slugs(self) -> dict[str, str]:
        with self._warehouse.reading() as transaction:
            return stored_slugs(transaction)


def _result(
    before: Catalog | None,
    after: Catalog,
    plans: Mapping[str, SchedulePlan],
    options: OptionsFile,
    usage: Usage,
) -> RefreshResult:
    unscheduled, refused, warnings, scheduled = [], [], [], 0
    for entry in after.entries:
        plan = plans[entry.id]
        name = label(entry)
        if plan.cron is None or plan.hold:
            unscheduled.append((name, plan.hold or plan.reason))
        else:
            scheduled += 1
        if plan.is_refused(entry):
            refused.append((name, plan.reason))
        warnings += [(name, text) for text in (*plan.warnings, *entry.notes)]
        warnings += [
            (name, text)
            for text in options.of(entry.id, entry.name, entry.config).problems
            if not options.problem
        ]
    if options.problem:
        warnings.append(("options", options.problem))
    stray = options.unknown({entry.id for entry in after.entries}, {entry.name for entry in after.entries})
    warnings += [("options", f"'{key}' is neither the id nor the name of a sync") for key in stray]
    problem = zone_problem(after)
    if problem:
        warnings.append(("time zone", problem))
    return RefreshResult(
        after,
        compare(before, after),
        tuple(unscheduled),
        tuple(refused),
        tuple(warnings),
        scheduled,
        usage,
    )
