"""`rally-pipeline sync`: one headless catch-up of what is configured, through Dagster."""

from __future__ import annotations

from importlib import import_module

import click

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import CommandFailed, UserMistake
from rally_pipeline.cli.sync.session import CatchUp, SyncSession, open_session
from rally_pipeline.cli.sync.warnings import shown_warnings
from rally_pipeline.cli.terminal import StreamBars, remarks
from rally_pipeline.settings import Settings

CATCH_UPS: tuple[tuple[str, str], ...] = (
    ("rally", "rally_pipeline.cli.sync.rally"),
    ("sell", "rally_pipeline.cli.sync.sell"),
    ("signalsmith", "rally_pipeline.cli.sync.signalsmith"),
)
"""One line per system: its name and a module with `catch_up(session)`, in the order in which they run."""


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(sync)


@click.command(short_help="Catch up once with everything that is configured.")
@click.argument(
    "systems", nargs=-1, type=click.Choice([name for name, _ in CATCH_UPS]), metavar="[SYSTEM]..."
)
@click.option(
    "--no-wait", is_flag=True, help="Leave changes that are too fresh to be settled to the next run."
)
def sync(systems: tuple[str, ...], no_wait: bool) -> None:
    """Catch up once with SYSTEM (default: everything that is configured), without services or schedules.

    The runs are recorded in Dagster's storage in the home folder, so `rally-pipeline dev` shows them. The first time
    all records are read; later only what changed. Fit for cron: exit code 0 means that everything succeeded.
    """
    settings = read_settings()
    chosen = systems or _configured(settings)
    if settings.rally_pipeline_read_only and "sell" in chosen:
        chosen = _without_sell(systems, chosen)
    for system in chosen:
        missing = settings.missing(system)
        if missing:
            raise UserMistake(
                f"{system} is not configured: set {' and '.join(missing)} (a file .env works too)"
            )
    with (
        shown_warnings(),
        StreamBars() as bars,
        open_session(settings, bars, wait=not no_wait) as session,
    ):
        for system, module in CATCH_UPS:
            if system in chosen:
                catch_up: CatchUp = import_module(module).catch_up
                catch_up(session)
    for line in session.lines:
        remarks.print(line, markup=False)
    _report(session)


def _configured(settings: Settings) -> tuple[str, ...]:
    found = tuple(name for name, _ in CATCH_UPS if settings.is_configured(name))
    if not found:
        raise UserMistake(
            "nothing is configured: set RALLY_API_URL and RALLY_API_KEY, or try `rally-pipeline demo` first"
        )
    return found


def _without_sell(named: tuple[str, ...], chosen: tuple[str, ...]) -> tuple[str, ...]:
    """With RALLY_PIPELINE_READ_ONLY the queue stays closed: said, or refused where nothing else was asked for."""
    reason = "sell: RALLY_PIPELINE_READ_ONLY=true forbids writing: the Sell queue is not opened"
    if "sell" in named:
        raise UserMistake(reason)
    remarks.print(reason, markup=False, soft_wrap=True)
    return tuple(system for system in chosen if system != "sell")


def _report(session: SyncSession) -> None:
    """One line per distinct failure; the last one becomes the error line."""
    failures = session.failures
    if not failures:
        return
    by_line: dict[str, list[str]] = {}
    for failure in failures:
        by_line.setdefault(failure.line, []).append(failure.step)
    lines = [f"{', '.join(steps)}: {line}" for line, steps in by_line.items()]
    for line in lines[:-1]:
        remarks.print(line, markup=False)
    if all(failure.mistake for failure in failures):
        raise UserMistake(lines[-1])
    raise CommandFailed(lines[-1])
