"""The command line. One module per command family; each registers its commands on the group `main`."""

from __future__ import annotations

from importlib import import_module

import click

from rally_pipeline.cli.failures import FriendlyGroup

FAMILIES: tuple[str, ...] = (
    "rally_pipeline.cli.demo",
    "rally_pipeline.cli.dev",
    "rally_pipeline.cli.sandbox",
    "rally_pipeline.cli.sync",
    "rally_pipeline.cli.verify",
    "rally_pipeline.cli.status",
    "rally_pipeline.cli.files",
    "rally_pipeline.cli.quarantine",
    "rally_pipeline.cli.sell",
    "rally_pipeline.cli.signalsmith",
    "rally_pipeline.cli.allow_deletes",
    "rally_pipeline.cli.doctor",
    "rally_pipeline.cli.restored",
)
"""One line per family: a module with `register(group)`. Heavy libraries are imported inside its commands."""


@click.group(
    cls=FriendlyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="rally-pipeline", prog_name="rally-pipeline")
def main() -> None:
    """Keep a SQL warehouse and CRMs in step: nothing lost, nothing doubled, and proven row by row.

    \b
    New here?         rally-pipeline demo
    Look around:      rally-pipeline dev --sandbox
    With an account:  set RALLY_API_URL and RALLY_API_KEY (a file .env works too), then
                      rally-pipeline sync rally && rally-pipeline verify

    Settings are environment variables or lines of a file .env; docs/settings.md lists them all, with the folders.

    \b
    Exit codes: 0 all went well; 1 a run failed or the comparison found differences;
    2 something has to be changed by you first (the message says what); 3 --check found changes.
    """


for _family in FAMILIES:
    import_module(_family).register(main)
