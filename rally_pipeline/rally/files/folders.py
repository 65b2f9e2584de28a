"""Files in folders: private, written whole or not at all, and never outside their folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rally_pipeline.rally.files.problems import FileError

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
MAX_FILE_BYTES = 2 << 30
_BLOCK = 1 << 20
_PLAIN_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")


def make_folder(path: Path) -> Path:
    """The folder, made for this user only if it is not there."""
    path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def temporary_file(folder: Path, name: str) -> Iterator[Path]:
    """A private, hidden file in the folder that is gone after the block, unless it was moved away."""
    handle, found = tempfile.mkstemp(prefix=f".{name[:80]}.", suffix=".part", dir=folder)
    os.close(handle)
    path = Path(found)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder, moved to `path` when the block has succeeded. A failure or crash
    leaves the old file as it was, if there was one."""
    with temporary_file(path.parent, path.stem) as temporary:
        yield temporary
        move_into_place(temporary, path)


def move_into_place(temporary: Path, path: Path) -> None:
    """Make a finished file durable and give it its name, in one step."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.chmod(PRIVATE_FILE)
    temporary.replace(path)


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a regular file.

    Raises:
        FileError: no file, no regular file, or larger than any import can be.
    """
    try:
        mode = path.stat()
    except FileNotFoundError:
        raise FileError(f"there is no file {path}") from None
    if not stat.S_ISREG(mode.st_mode):
        raise FileError(f"{path} is not a file")
    if mode.st_size > MAX_FILE_BYTES:
        raise FileError(
            f"{path} has {mode.st_size:,} bytes; at most {MAX_FILE_BYTES:,} are imported: divide it"
        )
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def inside(folder: Path, name: str) -> Path:
    """The regular file of that name directly in the folder.

    Raises:
        FileError: the name could lead elsewhere, or the entry is a link or no file.
    """
    if not _PLAIN_NAME.fullmatch(name) or name in (".", ".."):
        raise FileError(f"'{name[:80]!r}' is not the name of a file in {folder}")
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise FileError(f"there is no file '{name}' in {folder}, or it is a link")
    return path


def list_inbox(folder: Path) -> list[Path]:
    """The files that wait in an inbox folder, by name: no links, hidden or temporary files, and no rejects
    files, which a person renames once they are mended."""
    if not folder.is_dir():
        return []
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = entry.name.casefold()
        is_plain = entry.is_file(follow_symlinks=False) and _PLAIN_NAME.fullmatch(entry.name)
        if is_plain and name.endswith((".csv", ".xlsx")) and not name.startswith((".", "~$")):
            found.append(folder / entry.name)
    return [path for path in found if not path.name.casefold().endswith(".rejects.csv")]


def find_by_hash(folder: Path, sha256: str) -> Path | None:
    """The file of an inbox folder that has this content."""
    return next((path for path in list_inbox(folder) if hash_file(path)[0] == sha256), None)
