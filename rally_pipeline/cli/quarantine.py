"""`rally-pipeline quarantine` and `replay`: records that could not be stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import CommandFailed
from rally_pipeline.cli.terminal import StreamBars, remarks, results

if TYPE_CHECKING:
    from rally_pipeline.warehouse.quarantine import QuarantinedRecord


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(quarantine)
    group.add_command(replay)


@click.command(short_help="List the records that could not be stored, and why.")
@click.option(
    "--json", "as_json", is_flag=True, help="Machine-readable result on stdout, with the raw records."
)
def quarantine(as_json: bool) -> None:
    """List the records that could not be stored: where they came from, their key and the reason.

    They are kept as received. After the cause is removed, `rally-pipeline replay` looks at them again.
    """
    from rally_pipeline.warehouse import Warehouse

    settings = read_settings()
    with (
        Warehouse.open(settings.warehouse, schema=settings.warehouse_schema) as warehouse,
        warehouse.reading() as transaction,
    ):
        found = transaction.quarantined()
    if as_json:
        click.echo(json.dumps([_as_json(item) for item in found], indent=2))
        return
    if not found:
        remarks.print("Nothing is in quarantine.")
        return
    table = Table("source", "key", "reason", "first seen (UTC)", "attempts")
    for item in found:
        table.add_row(
            item.source,
            Text(item.key),
            Text(item.reason),
            f"{item.first_seen:%Y-%m-%d %H:%M}",
            str(item.attempts),
        )
    results.print(table)


def _as_json(item: QuarantinedRecord) -> dict[str, object]:
    return {
        "source": item.source,
        "key": item.key,
        "reason": item.reason,
        "raw": item.raw,
        "first_seen": item.first_seen.isoformat(),
        "last_seen": item.last_seen.isoformat(),
        "attempts": item.attempts,
    }


@click.command(short_help="Look again at the records in quarantine.")
def replay() -> None:
    """Look at every quarantined Rally record again at the source, store what fits now, keep the rest."""
    from rally_pipeline.rally.connection import open_mirror
    from rally_pipeline.rally.entities import Entity

    settings = read_settings()
    with StreamBars() as bars, open_mirror(settings, progress=bars) as mirror:
        result = mirror.replay_quarantine()
        for entity in Entity:
            mirror.settle(entity)
        left = sum(table.quarantined for table in mirror.status().tables)
    remarks.print(f"{result.tried} tried, {result.tried - left} stored, {left} still in quarantine")
    if left:
        raise CommandFailed(f"{left} records still cannot be stored; `rally-pipeline quarantine` says why")
