"""`rally-pipeline status`: what the warehouse holds and how far behind it is. Makes no request."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import UserMistake
from rally_pipeline.cli.terminal import results
from rally_pipeline.settings import Settings

SOURCES: tuple[tuple[str, str], ...] = (
    ("rally", "rally_pipeline.cli.status_rally"),
    ("sell", "rally_pipeline.cli.status_sell"),
    ("signalsmith", "rally_pipeline.cli.status_signalsmith"),
)
"""One line per system: its name and a module with `read_status(settings) -> SystemStatus`."""


@dataclass(frozen=True, slots=True)
class TableLine:
    """One table as it stands. `None` where a figure does not exist for the table."""

    table: str
    rows: int
    synced_through: datetime | None
    lag_seconds: float | None
    open_marks: int | None
    oldest_mark_seconds: float | None
    quarantined: int
    last_run: datetime | None


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """A system's tables and what a person should know; empty `problems` means that all is well."""

    system: str
    tables: tuple[TableLine, ...]
    problems: tuple[str, ...]


StatusReader = Callable[[Settings], SystemStatus]


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(status)


@click.command(short_help="Rows, lag, open marks, quarantine of every table.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def status(as_json: bool) -> None:
    """Per table: rows, synced through, lag, open marks and their age, quarantined records, last run.

    Reads the warehouse only and makes no request. "Synced through" is the time up to which every change of the
    source is known; an open mark is a change that is known and whose record has not been looked at yet.
    """
    settings = read_settings()
    configured = [(name, module) for name, module in SOURCES if settings.is_configured(name)]
    if not configured:
        missing = "; ".join(f"{name} needs {' and '.join(settings.missing(name))}" for name, _ in SOURCES)
        raise UserMistake(f"nothing is configured: {missing}")
    found = [_reader(module)(settings) for _, module in configured]
    moved = _why_moved(settings)
    if as_json:
        surroundings = {"read_only": settings.rally_pipeline_read_only, "copy_or_older_state": list(moved)}
        click.echo(json.dumps({**surroundings, **_as_json(found)}, indent=2))
        return
    results.print(_as_table(found))
    if settings.rally_pipeline_read_only:
        results.print(
            "RALLY_PIPELINE_READ_ONLY=true: nothing is written to any remote system", style="yellow"
        )
    if moved:
        why = f"the warehouse may be a copy or an older state of another one ({'; '.join(moved)})"
        results.print(Text(f"{why}: run `rally-pipeline restored`", style="red"), soft_wrap=True)
    for system in found:
        for problem in system.problems:
            results.print(Text(f"{system.system}: {problem}", style="yellow"))


def _why_moved(settings: Settings) -> tuple[str, ...]:
    """Why the warehouse is taken for a copy or an older state; empty where nothing shows."""
    from rally_pipeline.restored import why_moved
    from rally_pipeline.warehouse import Warehouse

    with Warehouse.open(
        settings.warehouse, schema=settings.warehouse_schema, home=settings.home_path
    ) as warehouse:
        return why_moved(warehouse)


def _reader(module: str) -> StatusReader:
    reader: StatusReader = import_module(module).read_status
    return reader


def _as_json(found: list[SystemStatus]) -> dict[str, object]:
    return {
        "systems": {
            system.system: {
                "problems": list(system.problems),
                "tables": {
                    line.table: {
                        "rows": line.rows,
                        "synced_through": _iso(line.synced_through),
                        "lag_seconds": line.lag_seconds,
                        "open_marks": line.open_marks,
                        "oldest_mark_seconds": line.oldest_mark_seconds,
                        "quarantined": line.quarantined,
                        "last_run": _iso(line.last_run),
                    }
                    for line in system.tables
                },
            }
            for system in found
        },
    }


def _as_table(found: list[SystemStatus]) -> Table:
    now = datetime.now(UTC)
    table = Table(caption="times in UTC", caption_justify="left", padding=0, box=SIMPLE_HEAD)
    table.add_column("table", no_wrap=True)
    for name in ("rows", "synced through", "lag", "open marks", "oldest mark", "quarantined", "last run"):
        table.add_column(name, justify="right")
    for system in found:
        for line in system.tables:
            table.add_row(
                line.table,
                f"{line.rows:,}",
                _moment(line.synced_through, now),
                _span(line.lag_seconds),
                "" if line.open_marks is None else f"{line.open_marks:,}",
                _span(line.oldest_mark_seconds),
                f"{line.quarantined:,}",
                _moment(line.last_run, now),
            )
    return table


def _iso(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _moment(value: datetime | None, now: datetime) -> str:
    """The time of day for today, with the date otherwise."""
    if value is None:
        return "never"
    return f"{value:%H:%M:%S}" if value.date() == now.date() else f"{value:%Y-%m-%d %H:%M}"


def _span(seconds: float | None) -> str:
    """Seconds as a person says them: `12 s`, `5 min`, `3 h`, `2 d`."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"
