"""`rally-pipeline doctor`: what a person should know before the first sync."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.text import Text

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import CommandFailed
from rally_pipeline.cli.terminal import results
from rally_pipeline.settings import SettingsError

if TYPE_CHECKING:
    from rally_pipeline.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(doctor)


@click.command(short_help="Check settings, keys, clock, network, database and folders.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def doctor(as_json: bool) -> None:
    """Look at everything that a sync needs, before the first one or when something is wrong.

    One line each: ok, warning or problem, and what to do. URLs, keys and what they may read; this machine's clock
    against the servers'; proxy and certificates; rights in the database, its version and room; home folder and
    Dagster's home; the Sell device; the age of SignalSmith's catalog; which systems are not configured.

    Nothing is written to any remote system and nothing is left behind here; the Sell queue is not opened. Each check
    has a few seconds, and goes on whatever became of the others. Exit code 1 where there is a problem.
    """
    found = _examine()
    problems = sum(finding.verdict == "problem" for finding in found)
    if as_json:
        click.echo(json.dumps({"red": problems > 0, "checks": [_as_json(one) for one in found]}, indent=2))
    else:
        for finding in found:
            results.print(_line(finding), soft_wrap=True)
    if problems:
        raise CommandFailed(f"{problems} {'problem' if problems == 1 else 'problems'}: see above")


def _examine() -> list[Finding]:
    """Settings that cannot be used are a problem like any other; what does not need them is still looked at."""
    from rally_pipeline.doctor import examine, examine_surroundings
    from rally_pipeline.doctor.finding import problem

    try:
        settings = read_settings()
    except SettingsError as error:
        return [problem("settings", str(error), "correct this first"), *examine_surroundings()]
    return examine(settings)


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "subject": finding.subject,
        "verdict": finding.verdict.value,
        "text": finding.text,
        "advice": finding.advice,
    }


def _line(finding: Finding) -> Text:
    advice = f" → {finding.advice}" if finding.advice else ""
    return Text.assemble(
        (f"{finding.verdict.value:<8}", _STYLES[finding.verdict.value]),
        f"{finding.subject:<13}{finding.text}{advice}",
    )
