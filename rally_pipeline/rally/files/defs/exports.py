"""Exports: an asset per entity that puts a checked, dated file into the exports folder."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from rally_pipeline.orchestration import metadata, policy
from rally_pipeline.orchestration.failures import clear_failures
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.timing import given_clock
from rally_pipeline.rally.defs.names import mirror_key
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.defs.imports import GROUP
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from rally_pipeline.rally.files.exporter import ExportReport

ROWS_EQUAL = "rows_equal_the_mirror"
EXPORT_SECONDS = 3600
FORMATS = "^(csv|xlsx|parquet)$"


def export_key(entity: Entity) -> tuple[str, str]:
    """Asset key of the export of `entity`."""
    return (GROUP, f"{entity.value}_export")


class ExportConfig(dg.Config):
    """Launchpad options of an export."""

    format: str = Field(default="csv", pattern=FORMATS, description="csv, xlsx, or parquet (needs pyarrow).")
    guard_formulas: bool = Field(
        default=True,
        description="Put an apostrophe before cells that a spreadsheet would run as formulas. An import takes it"
        " away again; off for files that only machines read.",
    )
    keep_days: int = Field(
        default=30, ge=1, le=3650, description="Older exports are removed; the newest one stays."
    )
    accept_shortfall: bool = Field(
        default=False, description="Believe an export that has far fewer rows than the mirror."
    )


def export_asset(entity: Entity, settings: Settings) -> dg.AssetsDefinition:
    """The export of one entity."""
    key = export_key(entity)
    asset_key = dg.AssetKey(list(key))

    @dg.asset(
        key=list(key),
        group_name=GROUP,
        kinds={"python", "csv"},
        deps=[dg.AssetKey(list(mirror_key(entity)))],
        description=f"Rally's own export of {entity.value} as a file: streamed, checked to its end, compared with"
        " the mirror, then moved into place under a dated name.",
        check_specs=[
            dg.AssetCheckSpec(
                ROWS_EQUAL, asset=asset_key, description="The export has as many rows as the mirror table."
            )
        ],
    )
    def export(
        context: dg.AssetExecutionContext,
        config: ExportConfig,
        rally: RallyResource,
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
        with clear_failures():
            report = _run(entity, settings.exports_path, context.log, config, rally, warehouse)
        return dg.MaterializeResult(metadata=_metadata(report), check_results=[_check(report)])

    return export


EXPORT_JOB = dg.define_asset_job(
    "rally_export",
    selection=dg.AssetSelection.assets(*(dg.AssetKey(list(export_key(entity))) for entity in Entity)),
    description="Exports of all four entities, each in a file.",
    tags=policy.stream_tags("rally_export", seconds=EXPORT_SECONDS),
)


def _run(
    entity: Entity,
    folder: Path,
    log: dg.DagsterLogManager,
    config: ExportConfig,
    rally: RallyResource,
    warehouse: WarehouseResource,
) -> "ExportReport":
    from rally_pipeline.orchestration.progress import step_progress
    from rally_pipeline.rally.client import connect
    from rally_pipeline.rally.files.exporter import Exporter, ExportFormat, ExportPolicy

    export_policy = ExportPolicy(
        guard_formulas=config.guard_formulas,
        keep_days=config.keep_days,
        accept_shortfall=config.accept_shortfall,
    )
    client = connect(rally.settings(warehouse), clock=given_clock())
    try:
        with warehouse.open() as opened:
            exporter = Exporter(
                opened, client, export_policy, clock=given_clock(), progress=step_progress(log)
            )
            return exporter.export(entity, folder, ExportFormat(config.format))
    finally:
        client.http.close()


def _metadata(report: "ExportReport") -> metadata.Metadata:
    columns = [dg.TableColumn(name=name, type="text") for name in report.headers]
    preview = [dg.TableRecord(dict(zip(report.headers, cells, strict=True))) for cells in report.preview]
    found: metadata.Metadata = {
        **metadata.numbers("rally", report.counts()),
        **metadata.row_count(report.rows),
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns=columns)),
        "dagster/uri": dg.MetadataValue.path(str(report.path)),
        "rally/sha256": dg.MetadataValue.text(report.sha256),
    }
    if preview:
        found["rally/preview"] = dg.MetadataValue.table(preview)
    if report.notes:
        found["rally/notes"] = dg.MetadataValue.text("; ".join(report.notes))
    return found


def _check(report: "ExportReport") -> dg.AssetCheckResult:
    known = {} if report.mirror_rows is None else {"mirror_rows": report.mirror_rows}
    return dg.AssetCheckResult(
        check_name=ROWS_EQUAL,
        passed=report.difference == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=None if report.mirror_rows is not None else "the mirror was never complete",
        metadata={"rows": report.rows, **known},
    )
