"""Imports: an asset per entity, a partition per file, named by the SHA-256 of its content.

A run may be repeated, cancelled or killed at any time: the next one goes on, and no row is sent twice.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from rally_pipeline.orchestration import metadata, policy
from rally_pipeline.orchestration.failures import clear_failures
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.timing import given_clock
from rally_pipeline.processes import PATIENCE_SECONDS
from rally_pipeline.rally.defs.names import mirror_key
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.entities import Entity
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from rally_pipeline.rally.files.importer import Importer, ImportReport

GROUP = "rally_files"
FILES = dg.DynamicPartitionsDefinition(name="rally_import_files")
ROWS_IMPORTED = "every_row_imported"
ROWS_DECIDED = "every_row_decided"
IMPORT_SECONDS = 6 * 3600
LINKED = (Entity.COMPANIES, Entity.CONTACTS, Entity.DEALS)


def import_key(entity: Entity) -> tuple[str, str]:
    """Asset key of the imports of `entity`."""
    return (GROUP, f"{entity.value}_import")


class ImportConfig(dg.Config):
    """Launchpad options of an import."""

    encoding: str | None = Field(
        default=None, description="Encoding of a CSV without byte-order mark, such as cp1252; empty is UTF-8."
    )
    check_links: bool = Field(
        default=True,
        description="Refuse rows whose company, contact or deal the mirror does not know; off leaves it to Rally.",
    )
    guard_formulas: bool = Field(
        default=True,
        description="Undo the apostrophes that guard against formulas, and put them into the rejects file.",
    )


def import_asset(entity: Entity, settings: Settings) -> dg.AssetsDefinition:
    """The imports of one entity."""
    inbox = settings.imports_path / entity.value
    key = import_key(entity)
    asset_key = dg.AssetKey(list(key))

    @dg.asset(
        key=list(key),
        group_name=GROUP,
        kinds={"python", "csv"},
        deps=[dg.AssetKey(list(mirror_key(linked))) for linked in LINKED],
        description=f"CSV and XLSX files of {entity.value} into Rally, one partition per file. Every row ends"
        " imported, duplicate, refused or unknown; what was not imported stands in a rejects CSV beside the file.",
        partitions_def=FILES,
        check_specs=[
            dg.AssetCheckSpec(ROWS_IMPORTED, asset=asset_key, description="No row was refused."),
            dg.AssetCheckSpec(
                ROWS_DECIDED, asset=asset_key, description="Of no row it is unknown whether Rally has it."
            ),
        ],
    )
    def import_file(
        context: dg.AssetExecutionContext,
        config: ImportConfig,
        rally: RallyResource,
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
        with clear_failures():
            report = _run(entity, inbox, context.partition_key, context.log, config, rally, warehouse)
        context.log.info(
            f"{report.file_name}: {report.rows} rows = {report.imported} imported + {report.duplicate} duplicate"
            f" + {report.refused} refused + {report.unknown} unknown ({report.status})"
        )
        return dg.MaterializeResult(metadata=_metadata(report), check_results=_checks(report))

    return import_file


IMPORT_JOB = dg.define_asset_job(
    "rally_import",
    selection=dg.AssetSelection.assets(*(dg.AssetKey(list(import_key(entity))) for entity in Entity)),
    description="One file of the inbox into Rally. Goes on where a killed run stopped.",
    tags=policy.stream_tags("rally_import", seconds=IMPORT_SECONDS, priority=5),
)


def _run(
    entity: Entity,
    inbox: Path,
    sha256: str,
    log: dg.DagsterLogManager,
    config: ImportConfig,
    rally: RallyResource,
    warehouse: WarehouseResource,
) -> "ImportReport":
    """Find the file of the partition and import it."""
    from dataclasses import replace

    from rally_pipeline.orchestration.progress import step_progress
    from rally_pipeline.rally.client import connect
    from rally_pipeline.rally.files.importer import Importer
    from rally_pipeline.rally.files.policy import ImportPolicy
    from rally_pipeline.warehouse import Warehouse

    settings = rally.settings(warehouse)
    import_policy = replace(
        ImportPolicy.of(settings),
        encoding=config.encoding,
        check_links=config.check_links,
        guard_formulas=config.guard_formulas,
    )
    client = connect(settings, clock=given_clock())
    try:
        with Warehouse.open(
            settings.warehouse, schema=settings.warehouse_schema, home=settings.home_path
        ) as opened:
            importer = Importer(
                opened,
                client,
                import_policy,
                clock=given_clock(),
                progress=step_progress(log),
                patience_seconds=PATIENCE_SECONDS,
            )
            importer.prepare()
            return _import(importer, entity, sha256, inbox)
    finally:
        client.http.close()


def _import(importer: "Importer", entity: Entity, sha256: str, folder: Path) -> "ImportReport":
    from rally_pipeline.rally.files.folders import find_by_hash
    from rally_pipeline.rally.files.problems import FileError

    path = find_by_hash(folder, sha256)
    if path is not None:
        return importer.run(entity, path)
    report = importer.resume(entity, sha256, folder)
    if report is None:
        raise FileError(f"no file with the content of this partition is in {folder}: put it back")
    return report


def _metadata(report: "ImportReport") -> metadata.Metadata:
    from rally_pipeline.rally.files.tables import import_row_errors

    found: metadata.Metadata = {
        **metadata.numbers("rally", report.counts()),
        **metadata.partition_row_count(report.imported),
        **metadata.table(import_row_errors),
        "rally/file_name": dg.MetadataValue.text(report.file_name),
        "rally/status": dg.MetadataValue.text(report.status),
        **metadata.rejects(
            "rally/rejects",
            ((_place(problem.row, problem.column), problem.message) for problem in report.problems),
        ),
    }
    if report.rejects is not None:
        found["rally/rejects_file"] = dg.MetadataValue.path(str(report.rejects))
    if report.notes:
        found["rally/notes"] = dg.MetadataValue.text("; ".join(report.notes))
    return found


def _place(row: int | None, column: str | None) -> str:
    place = "file" if row is None else f"row {row}"
    return f"{place}, {column}" if column else place


def _checks(report: "ImportReport") -> list[dg.AssetCheckResult]:
    return [
        dg.AssetCheckResult(
            check_name=ROWS_IMPORTED,
            passed=report.refused == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"refused": report.refused, "duplicate": report.duplicate, "rows": report.rows},
        ),
        dg.AssetCheckResult(
            check_name=ROWS_DECIDED,
            passed=report.unknown == 0,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"unknown": report.unknown, "rows": report.rows},
        ),
    ]
