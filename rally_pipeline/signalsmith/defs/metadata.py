"""What the UI shows of a sync and of its runs. Remote texts are text or table cells, never Markdown."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import dagster as dg

from rally_pipeline.orchestration import metadata
from rally_pipeline.signalsmith.catalog import Catalog, Entry
from rally_pipeline.signalsmith.lineage import known_upstream
from rally_pipeline.signalsmith.options import SyncOptions
from rally_pipeline.signalsmith.schedules import SchedulePlan

if TYPE_CHECKING:
    from rally_pipeline.signalsmith.records import Run

SHOWN_ROWS = 200
SHOWN_CHARACTERS = 300


def remote_url(catalog: Catalog, sync_id: str, run_id: str | None = None) -> str:
    """Where a person finds the sync or the run: on the host of the API, whatever the remote itself says."""
    parts = urlsplit(catalog.api_url)
    path = f"/workspaces/{quote(catalog.workspace_id, safe='')}/syncs/{quote(sync_id, safe='')}"
    run = f"/runs/{quote(run_id, safe='')}" if run_id else ""
    return f"{parts.scheme}://{parts.netloc}{path}{run}"


def upstream_keys(entry: Entry, options: SyncOptions) -> list[dg.AssetKey]:
    """What feeds the sync: declared, or read from its model's SQL."""
    found = dict.fromkeys([*options.upstream, *known_upstream(entry.tables)])
    return [dg.AssetKey(list(key)) for key in found]


def sync_metadata(
    catalog: Catalog, entry: Entry, options: SyncOptions, plan: SchedulePlan
) -> dict[str, object]:
    """What is known of a sync before it ever runs."""
    shown: dict[str, object] = {
        "signalsmith/sync_id": dg.MetadataValue.text(entry.id),
        "signalsmith/name": dg.MetadataValue.text(entry.name),
        "signalsmith/status": dg.MetadataValue.text(entry.status or "unknown"),
        "signalsmith/ownership": dg.MetadataValue.text(options.ownership.value),
        "signalsmith/mode": dg.MetadataValue.text(entry.sync_mode or "unknown"),
        "signalsmith/primary_key": dg.MetadataValue.text(entry.primary_key),
        "signalsmith/schedule": dg.MetadataValue.text(entry.schedule or "none"),
        "signalsmith/link": dg.MetadataValue.url(remote_url(catalog, entry.id)),
    }
    optional = {
        "signalsmith/description": entry.description,
        "signalsmith/model": entry.model_name,
        "signalsmith/no_schedule_because": plan.hold or plan.reason,
        "signalsmith/remarks": "; ".join([*plan.warnings, *options.problems, *entry.notes]),
    }
    shown |= {key: dg.MetadataValue.text(text) for key, text in optional.items() if text}
    if entry.field_mapping:
        shown["dagster/column_schema"] = _column_schema(entry)
    return shown


def column_lineage(entry: Entry) -> metadata.Metadata:
    """Which column of which table each destination field comes from, where the model reads one known table only."""
    known = known_upstream(entry.tables)
    if len(known) != 1 or len(entry.tables) != 1:
        return {}
    upstream = dg.AssetKey(list(known[0]))
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for mapped in entry.field_mapping:
        dep = dg.TableColumnDep(asset_key=upstream, column_name=mapped["source_column"])
        deps.setdefault(mapped["destination_field"], []).append(dep)
    lineage = dg.TableColumnLineage(deps_by_column=deps)
    return {"dagster/column_lineage": dg.MetadataValue.column_lineage(lineage)} if deps else {}


def run_metadata(catalog: Catalog, entry: Entry, run: "Run", origin: str) -> metadata.Metadata:
    """One run: numbers that the UI plots, and where to find it."""
    numbers = {
        "rows_synced": run.rows_synced,
        "rows_failed": run.rows_failed,
        "seconds": run.seconds or 0.0,
    }
    return {
        **metadata.row_count(run.rows_synced),
        **metadata.numbers("signalsmith", numbers),
        "signalsmith/run_id": dg.MetadataValue.text(run.id),
        "signalsmith/run_status": dg.MetadataValue.text(run.status),
        "signalsmith/origin": dg.MetadataValue.text(origin),
        "signalsmith/mode": dg.MetadataValue.text(entry.sync_mode or "unknown"),
        "signalsmith/run_link": dg.MetadataValue.url(remote_url(catalog, entry.id, run.id)),
        "signalsmith/link": dg.MetadataValue.url(remote_url(catalog, entry.id)),
        **metadata.instant("signalsmith/started_at", run.started_at),
        **metadata.instant("signalsmith/completed_at", run.completed_at),
    }


def table(key: str, rows: Iterable[Mapping[str, str]]) -> metadata.Metadata:
    """A small table of texts; nothing when there are no rows."""
    records = [
        dg.TableRecord({name: value[:SHOWN_CHARACTERS] for name, value in row.items()}) for row in rows
    ][:SHOWN_ROWS]
    return {key: dg.MetadataValue.table(records)} if records else {}


def _column_schema(entry: Entry) -> dg.TableSchema:
    columns: dict[str, dg.TableColumn] = {}
    for mapped in entry.field_mapping:
        name, source = mapped["destination_field"], mapped["source_column"]
        kind = mapped.get("type_cast") or entry.column_types.get(source, "string")
        columns.setdefault(name, dg.TableColumn(name=name, type=kind, description=f"from {source}"))
    return dg.TableSchema(columns=list(columns.values()))
