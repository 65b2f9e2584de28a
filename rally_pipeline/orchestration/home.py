"""Dagster's home folder: its settings and its storage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING

from rally_pipeline.orchestration.upgrade import correct_instance_file
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

PACKAGED = Path(__file__).parent
WORKSPACE = PACKAGED / "workspace.yaml"
INSTANCE_FILE = "dagster.yaml"
PREPARE_SECONDS = 180.0
"""How long another process that prepares the same home is waited for."""


def dagster_home(settings: Settings) -> Path:
    """`DAGSTER_HOME` where it is set (production), else the folder `dagster` in the home folder; always absolute."""
    chosen = os.environ.get("DAGSTER_HOME", "").strip()
    return Path(chosen).expanduser().resolve() if chosen else settings.home_path / "dagster"


def prepare_home(home: Path) -> None:
    """Create the folder, its `dagster.yaml` and the storage's tables.

    A `dagster.yaml` that is there stays as it is, but for names of this package that only an earlier version had.
    On a fresh SQLite home two processes that start at once race for the tables, so one goes first.

    Raises:
        OSError: the folder cannot be written, or another process has been preparing it for too long.
    """
    from filelock import FileLock

    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "prepare.lock", timeout=PREPARE_SECONDS):
        correct_instance_file(home)
        if not (home / INSTANCE_FILE).exists():
            copyfile(PACKAGED / INSTANCE_FILE, home / INSTANCE_FILE)
        with open_instance(home) as instance:
            instance.get_runs(limit=1)
            instance.all_asset_keys()
            instance.all_instigator_state()


@contextmanager
def open_instance(home: Path) -> Iterator[DagsterInstance]:
    """The instance of `home` for a command: what it prints goes to the terminal, not into captured log files."""
    from dagster import DagsterInstance
    from dagster._core.instance.ref import InstanceRef

    quiet = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    ref = InstanceRef.from_dir(str(home), overrides={"compute_logs": quiet})
    with DagsterInstance.from_ref(ref) as instance:
        yield instance
