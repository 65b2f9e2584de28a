"""`rally-pipeline verify`: Rally against the warehouse, value by value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import CommandFailed
from rally_pipeline.cli.terminal import StreamBars, results
from rally_pipeline.rally.entities import Entity

if TYPE_CHECKING:
    from rally_pipeline.rally.results import Comparison

SHOWN_EXAMPLES = 5
SYSTEMS = ("rally",)
"""What can be compared, in the order in which it is."""


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(verify)


@click.command(short_help="Compare Rally with the warehouse, value by value.")
@click.argument("systems", nargs=-1, type=click.Choice(SYSTEMS), metavar="[SYSTEM]...")
@click.option("--heal", is_flag=True, help="Repair exactly the rows that differ.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def verify(systems: tuple[str, ...], heal: bool, as_json: bool) -> None:
    """Compare SYSTEM (rally, which is the default) with the warehouse by id and by every column value.

    First the change feed is read and what is pending is refetched, as `sync` does. Reports rows that are missing, extra
    or stale. Rows that change meanwhile are counted apart, as in flight: they are no difference, and no repair. Exit
    code 1 where rows differ; with --heal where a difference is left.
    """
    from rally_pipeline.rally.connection import open_mirror

    del systems  # there is only one so far
    settings = read_settings()
    with StreamBars() as bars, open_mirror(settings, progress=bars) as mirror:
        found = mirror.verify_all(heal=heal)
    left = sum(result.left for result in found)
    if as_json:
        click.echo(json.dumps(_as_json(found, left), indent=2))
    else:
        results.print(_as_table(found))
        _print_examples(found)
    if left:
        rows = f"{left:,} row differs" if left == 1 else f"{left:,} rows differ"
        raise CommandFailed(
            f"{rows} even after healing; `rally-pipeline status` shows what is pending or quarantined"
            if heal
            else f"{rows}; `rally-pipeline verify --heal` repairs just those"
        )


def _as_json(found: list[Comparison], left: int) -> dict[str, object]:
    return {
        "equal": left == 0,
        "differences": sum(result.differences for result in found),
        "left": left,
        "entities": {
            result.entity: {
                **result.counts(),
                "examples": [{"id": entity_id, "difference": kind} for entity_id, kind in result.examples],
            }
            for result in found
        },
    }


def _as_table(found: list[Comparison]) -> Table:
    table = Table(padding=0, box=SIMPLE_HEAD)
    table.add_column("table", no_wrap=True)
    for name in (
        "compared",
        "equal",
        "missing",
        "extra",
        "stale",
        "in flight",
        "repaired",
        "left",
        "requests",
    ):
        table.add_column(name, justify="right")
    for result in found:
        numbers = (
            result.compared,
            result.equal,
            result.missing,
            result.extra,
            result.stale,
            result.in_flight,
            result.repaired,
            result.left,
            result.cost.requests,
        )
        table.add_row(Entity(result.entity).table_name, *(f"{number:,}" for number in numbers))
    return table


def _print_examples(found: list[Comparison]) -> None:
    for result in found:
        for entity_id, kind in result.examples[:SHOWN_EXAMPLES]:
            results.print(Text(f"{kind} in {Entity(result.entity).table_name}: {entity_id}"), soft_wrap=True)
