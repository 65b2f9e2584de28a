"""`rally-pipeline import`, `export`, `template`: Rally's files by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import CommandFailed
from rally_pipeline.cli.terminal import StreamBars, remarks, results
from rally_pipeline.rally.entities import Entity

if TYPE_CHECKING:
    from rally_pipeline.rally.client import RallyClient
    from rally_pipeline.rally.files.exporter import ExportReport
    from rally_pipeline.rally.files.importer import ImportReport
    from rally_pipeline.settings import Settings
    from rally_pipeline.warehouse import Warehouse

SHOWN_PROBLEMS = 10
_entity = click.argument("entity", type=click.Choice([entity.value for entity in Entity]))
_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(import_file)
    group.add_command(export)
    group.add_command(template)


@click.command("import", short_help="Import a CSV or XLSX file into Rally.")
@_entity
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check only: nothing is sent, nothing is stored.")
@click.option("--encoding", help="Encoding of a CSV that is not UTF-8, such as cp1252.")
@click.option("--no-link-check", is_flag=True, help="Leave it to Rally whether linked records exist.")
@click.option("--raw", is_flag=True, help="Leave apostrophes before = + - @ as they are.")
@click.option("--again", is_flag=True, help="Insist on a file that was, or counts as, imported before.")
@_json
def import_file(
    entity: str,
    file: Path,
    dry_run: bool,
    encoding: str | None,
    no_link_check: bool,
    raw: bool,
    again: bool,
    as_json: bool,
) -> None:
    """Import FILE (CSV or XLSX) into ENTITY.

    Everything that can be checked is checked first, each problem with its row and column. Every row ends imported,
    duplicate, refused or unknown; what was not imported is written to FILE's name with .rejects.csv, to be mended and
    imported again. Killed at any moment, the same command goes on; the same file twice does nothing. Exit code 1 where
    a row was refused or is unknown.
    """
    from rally_pipeline.rally.files.importer import Importer
    from rally_pipeline.rally.files.policy import ImportPolicy

    settings = read_settings()
    policy = replace(
        ImportPolicy.of(settings), encoding=encoding, check_links=not no_link_check, guard_formulas=not raw
    )
    with _opened(settings) as (warehouse, client), StreamBars() as bars:
        importer = Importer(warehouse, client, policy, progress=bars)
        importer.prepare()
        run = importer.check if dry_run else partial(importer.run, again=again)
        report = run(Entity(entity), file)
    _show_import(report, as_json=as_json)
    if not report.succeeded:
        left = f"{report.refused} refused, {report.unknown} unknown of {report.rows} rows"
        where = f"; mend {report.rejects} and import it" if report.rejects else ""
        raise CommandFailed(left + where)


@click.command(short_help="Export a table of Rally as a checked file.")
@_entity
@click.option(
    "--format", "file_format", type=click.Choice(["csv", "xlsx", "parquet"]), default="csv", show_default=True
)
@click.option("--raw", is_flag=True, help="For machines: cells that begin with = + - @ stay as they are.")
@click.option(
    "--keep-days",
    type=click.IntRange(1, 3650),
    default=30,
    show_default=True,
    help="Remove older exports of the same kind.",
)
@click.option("--accept-shortfall", is_flag=True, help="Believe far fewer rows than the mirror has.")
@_json
def export(
    entity: str, file_format: str, raw: bool, keep_days: int, accept_shortfall: bool, as_json: bool
) -> None:
    """Export ENTITY into a dated file in EXPORTS_DIR.

    The file appears only when it was read to its end and compared with the mirror.
    """
    from rally_pipeline.rally.files.exporter import Exporter, ExportFormat, ExportPolicy

    settings = read_settings()
    policy = ExportPolicy(guard_formulas=not raw, keep_days=keep_days, accept_shortfall=accept_shortfall)
    with _opened(settings) as (warehouse, client), StreamBars() as bars:
        exporter = Exporter(warehouse, client, policy, progress=bars)
        report = exporter.export(Entity(entity), settings.exports_path, ExportFormat(file_format))
    _show_export(report, as_json=as_json)


@click.command(short_help="Save the CSV template of an entity.")
@_entity
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; default ENTITY_template.csv in this folder.",
)
def template(entity: str, output: Path | None) -> None:
    """Save Rally's CSV template of ENTITY."""
    from rally_pipeline.rally.files.exporter import Exporter

    settings = read_settings()
    with _opened(settings) as (warehouse, client):
        path = Exporter(warehouse, client).save_template(
            Entity(entity), output or Path(f"{entity}_template.csv")
        )
    results.print(Text(str(path)), soft_wrap=True)


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Warehouse, RallyClient]]:
    from rally_pipeline.rally.client import connect
    from rally_pipeline.warehouse import Warehouse

    client = connect(settings)
    try:
        with Warehouse.open(
            settings.warehouse, schema=settings.warehouse_schema, home=settings.home_path
        ) as warehouse:
            yield warehouse, client
    finally:
        client.http.close()


def _show_import(report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        found = {
            "entity": report.entity,
            "file": report.file_name,
            "sha256": report.sha256,
            "status": report.status,
            **report.counts(),
            "rejects": None if report.rejects is None else str(report.rejects),
            "notes": list(report.notes),
            "problems": [
                {
                    "row": problem.row,
                    "line": problem.line,
                    "column": problem.column,
                    "fault": problem.fault.value,
                    "message": problem.message,
                }
                for problem in report.problems
            ],
        }
        click.echo(json.dumps(found, indent=2))
        return
    table = Table(padding=0, box=SIMPLE_HEAD)
    checked = report.status == "checked"
    names = ("rows", "accepted", "duplicate", "refused", "chunks") if checked else _COLUMNS
    for name in names:
        table.add_column(name, justify="right")
    table.add_row(*(f"{report.counts()[name]:,}" for name in names))
    results.print(Text(f"{report.file_name} into {report.entity}: {report.status}"), soft_wrap=True)
    results.print(table)
    for problem in report.problems[:SHOWN_PROBLEMS]:
        results.print(Text(str(problem)), soft_wrap=True)
    if len(report.problems) > SHOWN_PROBLEMS:
        results.print(Text("…"))
    for note in report.notes:
        remarks.print(Text(note), soft_wrap=True)


_COLUMNS = ("rows", "imported", "duplicate", "refused", "unknown", "uploads", "requests")


def _show_export(report: ExportReport, *, as_json: bool) -> None:
    if as_json:
        found = {
            "entity": report.entity,
            "format": report.format,
            "path": str(report.path),
            "sha256": report.sha256,
            **report.counts(),
            "notes": list(report.notes),
        }
        click.echo(json.dumps(found, indent=2))
        return
    mirror = "" if report.mirror_rows is None else f", {report.mirror_rows:,} in the mirror"
    results.print(Text(str(report.path)), soft_wrap=True)
    results.print(
        Text(f"{report.rows:,} rows{mirror}, {report.bytes:,} bytes, sha256 {report.sha256}"), soft_wrap=True
    )
    for note in report.notes:
        remarks.print(Text(note), soft_wrap=True)
