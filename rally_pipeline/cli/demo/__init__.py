"""`rally-pipeline demo`: the whole promise on this machine, without an account."""

from __future__ import annotations

import time
from importlib import import_module

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rally_pipeline.cli.demo.stage import DemoLine, DemoPart, open_stage
from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import CommandFailed
from rally_pipeline.cli.terminal import remarks, results

PARTS: tuple[str, ...] = (
    "rally_pipeline.cli.demo.rally",
    "rally_pipeline.cli.demo.files",
    "rally_pipeline.cli.demo.sell",
    "rally_pipeline.cli.demo.signalsmith",
)
"""One line per part: a module with `perform(stage) -> list[DemoLine]`, in the order in which they run."""


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(demo)


@click.command(short_help="See it work on simulated APIs, without an account, in under a minute.")
@click.option(
    "--records", type=click.IntRange(4), default=5_000, show_default=True, help="Rally records in all."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed tells the same story.")
def demo(records: int, seed: int) -> None:
    """See it work on simulated APIs on this machine; no account, nothing of yours is touched.

    Starts the sandbox, mirrors it into a warehouse, lets it change behind our back (inserts, updates, deletes, many
    changes in one second, entries that appear late), catches up, and then compares source and warehouse row by row.
    Exit code 0 only if everything agrees.
    """
    settings = read_settings()
    begun = time.monotonic()
    with open_stage(settings.home_path / "demo", records=records, seed=seed) as stage:
        lines: list[DemoLine] = []
        for module in PARTS:
            perform: DemoPart = import_module(module).perform
            lines.extend(perform(stage))
    seconds = time.monotonic() - begun
    results.print(_summary(lines, seconds))
    differences = sum(line.differences for line in lines)
    remarks.print(f"The warehouse is kept in {stage.warehouse_path}", markup=False, soft_wrap=True)
    if differences:
        raise CommandFailed(f"{differences} rows differ between source and warehouse")
    results.print("[green]Source and warehouse agree row by row.[/green]")


def _summary(lines: list[DemoLine], seconds: float) -> Table:
    table = Table(
        title=f"Done in {seconds:.0f} s",
        title_justify="left",
        show_footer=True,
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("table", footer="in all", no_wrap=True)
    sums = {
        "rows": sum(line.rows for line in lines),
        "inserted": sum(line.inserted for line in lines),
        "updated": sum(line.updated for line in lines),
        "deleted": sum(line.deleted for line in lines),
        "requests": sum(line.requests for line in lines),
        "at least": sum(line.fewest for line in lines),
    }
    for name, value in sums.items():
        table.add_column(name, justify="right", footer=f"{value:,}")
    table.add_column("s", justify="right", footer=f"{sum(line.seconds for line in lines):.1f}")
    table.add_column("differ", justify="right", footer=f"{sum(line.differences for line in lines):,}")
    for line in lines:
        counts = (line.rows, line.inserted, line.updated, line.deleted, line.requests, line.fewest)
        style = "red" if line.differences else None
        table.add_row(
            line.table,
            *(f"{count:,}" for count in counts),
            f"{line.seconds:.1f}",
            f"{line.differences:,}",
            style=style,
        )
    return table
