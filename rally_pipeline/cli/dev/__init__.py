"""`rally-pipeline dev`: Dagster's UI and services on this machine, with or without the sandbox."""

from __future__ import annotations

import os

import click

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.settings import Settings

SYSTEMS = ("rally", "sell", "signalsmith")


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(dev)


@click.command(short_help="Dagster's UI and services here, with the sandbox or with your accounts.")
@click.option(
    "--sandbox/--no-sandbox",
    "with_sandbox",
    default=None,
    help="Simulated APIs, filled and changing. Default: only when nothing is configured.",
)
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=3000, show_default=True, help="Of the UI, on 127.0.0.1."
)
@click.option(
    "--records", type=click.IntRange(0), default=5_000, show_default=True, help="Sandbox: Rally records."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Sandbox: the same seed gives the same data."
)
@click.option(
    "--faults", metavar="NAME", default="none", show_default=True, help="Sandbox: see `sandbox --help`."
)
def dev(with_sandbox: bool | None, port: int, records: int, seed: int, faults: str) -> None:
    """Start `dagster dev` with persistent storage in the home folder; Ctrl-C or SIGTERM ends everything.

    With the sandbox nothing has to be configured: sensors and schedules are on, and the asset graph fills itself within
    a minute or two. The sandbox keeps its data in memory, so its warehouse (in the folder `sandbox` of the home folder,
    apart from yours) begins anew with every start; the history of runs stays.
    """
    from rally_pipeline.cli.dev.sandboxed import SandboxOptions
    from rally_pipeline.cli.dev.services import run_services

    settings = read_settings()
    chosen = not _anything_configured(settings) if with_sandbox is None else with_sandbox
    options = SandboxOptions(records, seed, faults) if chosen else None
    run_services(settings, port=port, sandbox=options, environment=dict(os.environ))


def _anything_configured(settings: Settings) -> bool:
    return any(settings.is_configured(system) for system in SYSTEMS)
