"""From an error to one clear line and an exit code: 1 for a failed run, 2 where a person must change something first,
3 where `--check` found changes."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from rally_pipeline.http.redaction import escape, redact
from rally_pipeline.orchestration.diagnosis import diagnose
from rally_pipeline.settings import known_secrets

FAILED = 1
MISTAKE = 2
CHANGES = 3


class CommandFailed(Exception):
    """A command did its work and the outcome is bad: exit code 1 and this line."""


class UserMistake(Exception):
    """Something has to be changed first: exit code 2 and this line."""


class ChangesFound(Exception):
    """What was to be checked (`--check`) is not as it should be: exit code 3 and this line."""


class FriendlyGroup(click.Group):
    """Ends with a line and an exit code instead of a traceback. `RALLY_PIPELINE_TRACEBACK=1` shows the traceback."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """In the order of registration: what a newcomer needs stands first."""
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; exits the process."""
        try:
            return super().main(*args, **kwargs)
        except Exception as error:
            if os.environ.get("RALLY_PIPELINE_TRACEBACK"):
                raise
            code, line = outcome_of(error)
            _leave(code, line)


def outcome_of(error: Exception) -> tuple[int, str]:
    """Exit code and line for an error that a command let through."""
    if isinstance(error, CommandFailed):
        return FAILED, str(error)
    if isinstance(error, UserMistake):
        return MISTAKE, str(error)
    if isinstance(error, ChangesFound):
        return CHANGES, str(error)
    diagnosis = diagnose(error)
    if diagnosis is not None:
        return (MISTAKE if diagnosis.mistake else FAILED), diagnosis.line
    text = redact(" ".join(str(error).split()), known_secrets())
    line = f"unexpected {type(error).__name__}: {text} (RALLY_PIPELINE_TRACEBACK=1 shows where)"
    return FAILED, line


def _leave(code: int, line: str) -> NoReturn:
    # A path may hold line breaks, and bytes that are no text.
    shown = escape(line).encode("utf-8", "backslashreplace").decode()
    click.echo(f"Error: {shown}", err=True)
    sys.exit(code)
