"""A disk that is full: one clear line, and after space is made everything goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.outside.conftest import PACE, Place, tables_of
from tests.outside.processes import Home, cleared
from tests.outside.source import running_source

SMALL, LARGE = "3m", "300m"
MOUNT_SECONDS = 30


class SmallDisk:
    """A file system in memory of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, size: str, *, again: bool = False) -> None:
        """Make it, or change its size.

        Raises:
            subprocess.CalledProcessError: this user, or this container, may not mount.
        """
        options = f"{'remount,' if again else ''}size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=MOUNT_SECONDS)

    def unmount(self) -> None:
        """Remove it, also from under a process that still has a file there."""
        command = ["umount", "-l", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=MOUNT_SECONDS)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small disk at `tmp_path/disk`; skipped with the reason where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = SmallDisk(folder)
    try:
        made.mount(SMALL)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        pytest.skip(f"no small disk can be mounted here: {said.decode(errors='replace').strip() or error}")
    try:
        yield made
    finally:
        made.unmount()


@pytest.mark.parametrize("what", ["the warehouse", "everything"])
@pytest.mark.parametrize("system", ["rally", "sell"])
def test_a_full_disk_is_one_clear_line_and_then_forgotten(
    what: str, system: str, disk: SmallDisk, tmp_path: Path
) -> None:
    options = ("--records", "6000")
    with running_source(tmp_path / "source", *options) as source:
        variables = {**source.environment, **PACE, "RALLY_PIPELINE_HOME": str(tmp_path / "home")}
        if what == "everything":
            variables["RALLY_PIPELINE_HOME"] = str(disk.folder / "home")
        else:
            variables["WAREHOUSE_URL"] = f"sqlite:///{disk.folder / 'warehouse.db'}"
        home = Home(tmp_path, variables)
        home.path = Path(variables["RALLY_PIPELINE_HOME"])
        with cleared(home):
            place = Place(source, home, tables_of(home))
            if system == "sell":
                fill(disk.folder / "ballast", leave=700_000)
            ended = home.run("sync", system, code=None, seconds=300)
            assert ended.code in (1, 2), str(ended)
            said = ended.err.lower()
            assert "is full" in said or "no space left" in said, str(ended)
            assert "unexpected" not in said, str(ended)
            disk.mount(LARGE, again=True)
            home.run("sync", system, seconds=300)
            place.require_equal(system)


def fill(path: Path, *, leave: int) -> None:
    """A file that takes all the room but `leave` bytes."""
    left = os.statvfs(path.parent)
    path.write_bytes(b"x" * max(0, left.f_bavail * left.f_frsize - leave))
