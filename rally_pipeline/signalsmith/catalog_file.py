"""The catalog on disk: written so that a crash leaves a good file, read so that no state of it stops the loading.

Three files in the home folder: `signalsmith_catalog.json`, the last good one; `….previous.json`, the one before;
`….suspect.json`, a list that lost too many syncs and waits for a person. Reading never raises: what is wrong with
the newest file becomes `problem`, and the next older one is used.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rally_pipeline.signalsmith.catalog import VERSION, Catalog, Entry, Skipped, has_shrunk
from rally_pipeline.signalsmith.naming import is_slug

FILE_NAME = "signalsmith_catalog.json"
PREVIOUS = "signalsmith_catalog.previous.json"
SUSPECT = "signalsmith_catalog.suspect.json"
DAMAGED = "signalsmith_catalog.json.bak"
LARGEST_FILE = 200 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LoadedCatalog:
    """What the location is built from. `catalog` is empty where no file could be used; `problem` says why."""

    catalog: Catalog
    problem: str = ""

    @property
    def is_missing(self) -> bool:
        """No catalog was ever fetched here, or none survived."""
        return not self.catalog.fetched_at


class UnreadableCatalog(Exception):
    """A file is no catalog; the message says why."""


def load_catalog(home: Path, workspace_id: str | None = None) -> LoadedCatalog:
    """The newest believable catalog of the home folder. Never raises, never touches the network.

    A catalog of another workspace than `workspace_id` is left alone: its syncs do not exist in this one.
    """
    loaded = _newest(home)
    found = loaded.catalog.workspace_id
    if workspace_id is None or found in ("", workspace_id):
        return loaded
    problem = f"{FILE_NAME} is of workspace {found}, not of SIGNALSMITH_WORKSPACE_ID: materialize signalsmith/catalog"
    return LoadedCatalog(Catalog(), problem)


def _newest(home: Path) -> LoadedCatalog:
    problems = []
    for name in (FILE_NAME, PREVIOUS):
        path = home / name
        try:
            catalog = read_catalog(path)
        except FileNotFoundError:
            problems.append(f"{name} does not exist")
            continue
        except (UnreadableCatalog, OSError) as error:
            problems.append(str(error))
            continue
        if name == FILE_NAME:
            older = _older(home)
            if has_shrunk(older, len(catalog.present)) and not catalog.accepted_shrink and older is not None:
                problem = (
                    f"{name} holds {len(catalog.present)} syncs where {PREVIOUS} holds {len(older.present)}: not"
                    " believed; materialize signalsmith/catalog, or accept it with"
                    " `rally-pipeline signalsmith refresh --accept-shrink`"
                )
                return LoadedCatalog(older, problem)
            return LoadedCatalog(catalog)
        return LoadedCatalog(catalog, f"{problems[0]}; using {PREVIOUS} instead")
    if all(problem.endswith("does not exist") for problem in problems):
        return LoadedCatalog(Catalog(), "no catalog yet: materialize signalsmith/catalog to see the syncs")
    return LoadedCatalog(Catalog(), f"{problems[0]}: materialize signalsmith/catalog to fetch it again")


def read_catalog(path: Path) -> Catalog:
    """One catalog file, of this or an older version; entries that cannot be used become `skipped`.

    Raises:
        FileNotFoundError: there is none.
        UnreadableCatalog: damaged, not a catalog, or of a newer version.
    """
    try:
        size = path.stat().st_size
        content: Any = msgspec.json.decode(path.read_bytes()) if size <= LARGEST_FILE else None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UnreadableCatalog(f"{path.name} is damaged ({str(error)[:100]})") from None
    except IsADirectoryError:
        raise UnreadableCatalog(f"{path.name} is a folder") from None
    if not isinstance(content, dict) or not isinstance(content.get("version"), int):
        raise UnreadableCatalog(f"{path.name} is no catalog")
    if content["version"] > VERSION:
        raise UnreadableCatalog(f"{path.name} was written by a newer version of this package")
    return _convert(path, content)


def write_catalog(home: Path, catalog: Catalog) -> None:
    """Make `catalog` the newest one; the one before is kept, a damaged one moved aside.

    Raises:
        OSError: the folder or disk does not allow it; the old files are as they were.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / FILE_NAME
    try:
        read_catalog(path)
    except FileNotFoundError:
        pass  # the first one
    except UnreadableCatalog:
        path.replace(home / DAMAGED)
    else:
        _write(home / PREVIOUS, path.read_bytes())
    _write(path, msgspec.json.format(msgspec.json.encode(catalog), indent=1))


def set_aside(home: Path, catalog: Catalog) -> Path:
    """Keep a catalog that is not believed where a person can look at it."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(home / SUSPECT, msgspec.json.format(msgspec.json.encode(catalog), indent=1))
    return home / SUSPECT


def forget_suspect(home: Path) -> None:
    """Remove what was set aside, once a good list came."""
    (home / SUSPECT).unlink(missing_ok=True)


def _older(home: Path) -> Catalog | None:
    try:
        return read_catalog(home / PREVIOUS)
    except (OSError, UnreadableCatalog):
        return None


def _convert(path: Path, content: dict[str, Any]) -> Catalog:
    entries, skipped, slugs = [], [], set()
    rows = content.get("entries")
    for row in rows if isinstance(rows, list) else []:
        try:
            entry = msgspec.convert(row, Entry)
            if not entry.id or not is_slug(entry.slug) or entry.slug in slugs:
                raise msgspec.ValidationError("its id or slug is missing or doubled")
        except (msgspec.ValidationError, RecursionError) as error:
            name = str(row.get("name", ""))[:80] if isinstance(row, dict) else ""
            skipped.append(Skipped("", name, f"damaged entry in {path.name}: {str(error)[:100]}"))
            continue
        slugs.add(entry.slug)
        entries.append(entry)
    rest = {key: value for key, value in content.items() if key not in ("entries", "skipped")}
    try:
        catalog = msgspec.convert(rest, Catalog)
        known = msgspec.convert(content.get("skipped") or [], list[Skipped])
    except msgspec.ValidationError as error:
        raise UnreadableCatalog(f"{path.name} is no catalog ({str(error)[:100]})") from None
    return msgspec.structs.replace(catalog, entries=entries, skipped=[*known, *skipped])


def _write(path: Path, content: bytes) -> None:
    """Replace the file as a whole, readable by its owner only."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
