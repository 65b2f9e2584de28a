"""Settings for a command, the process environment that Dagster's resources read, and variables written out."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from rally_pipeline.settings import Settings, SettingsError, fill_environment, load_settings


def read_settings() -> Settings:
    """The settings in force, in a home folder that can be used; `.env` is put into the process environment too.

    Raises:
        SettingsError: a variable cannot be used.
    """
    fill_environment()
    settings = load_settings()
    _check_home(settings)
    return settings


def assignment(name: str, value: str) -> str:
    """`NAME='value'`: a line that a POSIX shell and readers of `.env` files understand alike."""
    if "'" not in value and "\\\\" not in value and not value.endswith("\\"):
        return f"{name}='{value}'"
    if not re.search(r"[$`]", value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{name}="{escaped}"'
    # No spelling means the same to both: the shell is the one that people are told to use.
    return f"{name}={shlex.quote(value)}"


def _check_home(settings: Settings) -> None:
    """Refuse what Dagster or the warehouse would stumble over later; nothing is created."""
    home = settings.home_path
    where = str(home).encode("utf-8", "backslashreplace").decode()
    holds_dagster = not os.environ.get("DAGSTER_HOME", "").strip()
    there = next(path for path in (home, *home.parents) if _exists(path))
    if not there.is_dir():
        raise SettingsError(f"RALLY_PIPELINE_HOME: {where} cannot be a folder, there is a file in its place")
    if (holds_dagster or settings.warehouse_is_file) and not os.access(there, os.W_OK | os.X_OK):
        raise SettingsError(
            f"RALLY_PIPELINE_HOME: {where} cannot be written: check the permissions, or use another folder"
        )
    if holds_dagster and re.search(r"\?|%[0-9A-Fa-f]{2}", str(home)):
        # Dagster makes a URL of the path of its SQLite files, and would take it apart into another path.
        raise SettingsError(
            f"RALLY_PIPELINE_HOME: Dagster cannot keep its storage in {where}: use a path without ? and %,"
            " or set DAGSTER_HOME"
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # below a folder that may not be looked into
        return False
