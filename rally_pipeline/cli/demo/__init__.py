"""`rally-pipeline demo`: the whole promise on this machine, without an account."""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib import import_module

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rally_pipeline.cli.demo.measuring import JobLine
from rally_pipeline.cli.demo.stage import DemoPart, Stage, TableLine, open_stage
from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import CommandFailed
from rally_pipeline.cli.terminal import remarks, results

PARTS: tuple[str, ...] = (
    "rally_pipeline.cli.demo.rally",
    "rally_pipeline.cli.demo.files",
    "rally_pipeline.cli.demo.sell",
    "rally_pipeline.cli.demo.signalsmith",
)
"""One line per part: a module with `perform(stage) -> list[TableLine]`, in the order in which they run."""


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

    Starts the sandbox, mirrors it into a warehouse with the jobs that you would run, lets it change behind our back
    (inserts, updates, deletes, many changes in one second, entries that appear late), catches up, and then compares
    source and warehouse value by value. `rally-pipeline dev --sandbox` shows its runs. Exit code 0 only if everything
    agrees.
    """
    begun = time.monotonic()
    with open_stage(read_settings(), records=records, seed=seed) as stage:
        lines: list[TableLine] = []
        for module in PARTS:
            perform: DemoPart = import_module(module).perform
            lines.extend(perform(stage))
            _stop_at_failures(stage)
    results.print(_jobs(stage.session.jobs.values(), time.monotonic() - begun))
    results.print(_tables(lines))
    remarks.print(f"The warehouse is kept in {stage.warehouse_path}", markup=False, soft_wrap=True)
    remarks.print("Its runs are in Dagster: `rally-pipeline dev --sandbox` shows them", markup=False)
    differences = sum(line.differences for line in lines)
    if differences:
        raise CommandFailed(f"{differences} rows differ between source and warehouse")
    results.print("[green]Source and warehouse agree row by row.[/green]")


def _stop_at_failures(stage: Stage) -> None:
    if stage.session.failures:
        told = dict.fromkeys(f"{failure.step}: {failure.line}" for failure in stage.session.failures)
        raise CommandFailed("; ".join(told))


def _jobs(jobs: Iterable[JobLine], seconds: float) -> Table:
    lines = list(jobs)
    table = _table(f"Done in {seconds:.0f} s")
    table.add_column("job", footer="in all", no_wrap=True)
    sums = {
        "runs": sum(line.runs for line in lines),
        "requests": sum(line.requests for line in lines),
        "at least": sum(line.fewest for line in lines),
    }
    for name, value in sums.items():
        table.add_column(name, justify="right", footer=f"{value:,}")
    table.add_column("s", justify="right", footer=f"{sum(line.seconds for line in lines):.1f}")
    for line in lines:
        counts = (line.runs, line.requests, line.fewest)
        table.add_row(line.job, *(f"{count:,}" for count in counts), f"{line.seconds:.1f}")
    return table


def _tables(lines: list[TableLine]) -> Table:
    table = _table(None)
    table.add_column("table", footer="in all", no_wrap=True)
    for place, name in enumerate(("rows", "inserted", "updated", "deleted", "at the source", "differ"), 1):
        table.add_column(name, justify="right", footer=f"{sum(int(line[place] or 0) for line in lines):,}")
    for line in lines:
        style = "red" if line.differences else None
        table.add_row(
            line.table, *("" if count is None else f"{int(count):,}" for count in line[1:]), style=style
        )
    return table


def _table(title: str | None) -> Table:
    return Table(title=title, title_justify="left", show_footer=True, box=SIMPLE_HEAD, pad_edge=False)
