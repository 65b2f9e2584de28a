"""Folders that the sandbox's commands empty at their start: only those that they made themselves."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from rally_pipeline.cli.failures import UserMistake

MARKER = ".made-by-rally-pipeline"


def empty_own_folder(folder: Path, *, keep: Collection[str] = ()) -> None:
    """Create the folder, or remove everything in it but the names in `keep`.

    Raises:
        UserMistake: the folder holds something and was not made by us; nothing was touched.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    present = [path for path in folder.iterdir() if path.name not in (MARKER, *keep)]
    if present and not (folder / MARKER).exists():
        raise UserMistake(
            f"{folder} holds files of yours ({present[0].name}, …): move them, or set RALLY_PIPELINE_HOME elsewhere"
        )
    (folder / MARKER).touch()
    for path in present:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
