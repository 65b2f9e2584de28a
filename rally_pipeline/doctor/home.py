"""The home folder, and Dagster's home: may they be written, is there room, is it a disk of this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from rally_pipeline.doctor.finding import Finding, ok, problem, warning
from rally_pipeline.orchestration.home import INSTANCE_FILE, dagster_home
from rally_pipeline.settings import Settings

LITTLE_BYTES = 1 << 30
TOO_LITTLE_BYTES = 64 << 20
_MOUNTS = Path("/proc/self/mounts")
_NETWORK = frozenset(
    (
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ncpfs",
    )
)
_NETWORK_PREFIXES = ("fuse.sshfs", "fuse.glusterfs", "fuse.s3", "fuse.gcsfuse", "fuse.rclone", "fuse.ceph")


def examine_home(settings: Settings) -> Iterator[Finding]:
    """The data folder, and the folders of imports and exports where they lie elsewhere."""
    yield from examine_folder("home", settings.home_path)
    for subject, folder in (("imports", settings.imports_path), ("exports", settings.exports_path)):
        if settings.home_path not in folder.parents:
            yield from examine_folder(subject, folder)


def examine_dagster(settings: Settings) -> Iterator[Finding]:
    """Where Dagster keeps its runs, and whether its configuration can be read."""
    folder = dagster_home(settings)
    chosen = "DAGSTER_HOME" if os.environ.get("DAGSTER_HOME", "").strip() else "in the home folder"
    if folder != settings.home_path / "dagster":
        yield from examine_folder("dagster", folder)
    file = folder / INSTANCE_FILE
    if not file.exists():
        yield ok(
            "dagster",
            f"{folder} ({chosen}): the first `rally-pipeline sync` or `dev` makes its {INSTANCE_FILE}",
        )
        return
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not YAML"
        yield problem(
            "dagster", f"{file} cannot be read: {reason}", "correct it, or move it away to get a new one"
        )
        return
    if content is not None and not isinstance(content, dict):
        yield problem("dagster", f"{file} is not a mapping", "correct it, or move it away to get a new one")
        return
    yield ok("dagster", f"{folder} ({chosen}): {INSTANCE_FILE} can be read")


def examine_folder(subject: str, folder: Path) -> Iterator[Finding]:
    """Whether the folder can be used, or made where it is not there yet."""
    there = nearest(folder)
    made = "" if there == folder else ", made by the first command that needs it"
    if not there.is_dir():
        yield problem(subject, f"{folder} cannot be made: {there} is not a folder", "name another folder")
        return
    refusal = why_not_writable(there)
    if refusal:
        yield problem(subject, f"{folder} cannot be written: {refusal}", f"check the permissions of {there}")
        return
    free = shutil.disk_usage(there).free
    kind = file_system(there)
    yield ok(subject, f"{folder}{made}: may be written, {size(free)} free")
    yield from judge_room(subject, there, free)
    if kind is not None and is_network(kind):
        yield warning(
            subject,
            f"{there} is on a network file system ({kind}), whose locks SQLite and Dagster's storage cannot trust",
            "keep the home folder on a disk of this machine, or warehouse and Dagster's storage in PostgreSQL",
        )


def judge_room(subject: str, folder: Path, free: int) -> Iterator[Finding]:
    """A line where there is little room left on the disk of `folder`."""
    if free < TOO_LITTLE_BYTES:
        yield problem(subject, f"only {size(free)} free at {folder}", "free space there")
    elif free < LITTLE_BYTES:
        yield warning(
            subject, f"only {size(free)} free at {folder}", "free space there before a full extract"
        )


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def why_not_writable(folder: Path) -> str:
    """Why no file can be made there, tried with one that is removed again; "" where it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"rally-pipeline doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return ""


def file_system(folder: Path) -> str | None:
    """The kind of file system that the folder is on; None where the operating system does not tell."""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best, kind = -1, None
    for line in mounts:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if (point == folder or point in folder.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def is_network(kind: str) -> bool:
    """Whether a kind of file system lies on another machine."""
    return kind in _NETWORK or kind.startswith(_NETWORK_PREFIXES)


def size(count: int) -> str:
    """Bytes as a person says them."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1_000:
            return f"{amount:,.0f} {unit}"
        amount /= 1_000
    return f"{amount:,.1f} TB"
