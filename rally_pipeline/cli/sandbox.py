"""`rally-pipeline sandbox`: the simulated APIs on this machine, until stopped."""

from __future__ import annotations

import click

from rally_pipeline.cli.environment import assignment
from rally_pipeline.cli.failures import UserMistake
from rally_pipeline.cli.stopping import stop_requests
from rally_pipeline.cli.terminal import remarks

READY = "# ready"
"""Last line on stdout before the sandbox serves, for a process that started it."""


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(sandbox)


@click.command(short_help="Serve the simulated APIs on 127.0.0.1 until stopped.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8790, show_default=True, help="0 takes a free one."
)
@click.option(
    "--records", type=click.IntRange(0), default=5_000, show_default=True, help="Rally records in all."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same data.")
@click.option(
    "--faults", metavar="NAME", default="none", show_default=True, help="What goes wrong; see below."
)
@click.option(
    "--changes-per-minute",
    type=click.FloatRange(0, 60_000),
    default=0.0,
    show_default=True,
    help="Random inserts, updates and deletes in Rally while it runs.",
)
@click.option("--end-with-stdin", is_flag=True, hidden=True)
def sandbox(
    port: int, records: int, seed: int, faults: str, changes_per_minute: float, end_with_stdin: bool
) -> None:
    """Serve the simulated APIs on 127.0.0.1 until Ctrl-C or SIGTERM.

    Prints the environment variables that point the pipeline at it: put them into a file .env, or let a shell read them.
    All data lives in memory and ends with the process. --faults takes none, flaky, throttled, slow, hostile-content,
    storm or everything.
    """
    from rally_pipeline.sandbox.application import Sandbox
    from rally_pipeline.sandbox.clock import SandboxClock
    from rally_pipeline.sandbox.profiles import PROFILES
    from rally_pipeline.sandbox.server import SandboxServer

    if faults not in PROFILES:
        raise UserMistake(f"--faults {faults}: choose one of {', '.join(PROFILES)}")
    served = Sandbox(
        seed=seed,
        records=records,
        clock=SandboxClock.running(),
        faults=faults,
        rally={"changes_per_second": changes_per_minute / 60},
    )
    with stop_requests(end_with_stdin=end_with_stdin) as stop, SandboxServer(served, port=port) as server:
        for name, value in server.environment().items():
            click.echo(assignment(name, value))
        click.echo(READY)
        remarks.print(f"Serving {', '.join(served.apis)} at {server.url}; stop with Ctrl-C", markup=False)
        stop.wait()
