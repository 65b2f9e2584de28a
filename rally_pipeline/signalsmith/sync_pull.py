"""Write what exists in SignalSmith as files, so that it can be kept under version control from then on."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from rally_pipeline.signalsmith.naming import assign_slugs
from rally_pipeline.signalsmith.options import FILE_NAME
from rally_pipeline.signalsmith.records import Sync
from rally_pipeline.signalsmith.sync_files import STATUSES, SyncFile
from rally_pipeline.signalsmith.sync_plan import remote_fields, same


@dataclass(frozen=True, slots=True)
class Pulled:
    """One sync and its file. `state`: written, replaced, unchanged, or kept (it differs and was left alone)."""

    name: str
    path: Path
    state: str


def pull(folder: Path, syncs: list[Sync], files: list[SyncFile], *, overwrite: bool = False) -> list[Pulled]:
    """A file for every sync. A file that is there and differs is replaced only with `overwrite`: it may hold
    comments, or changes that are not applied yet.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = {path.stem: path.stem for path in folder.iterdir()}
    slugs = assign_slugs([(sync.id, sync.name) for sync in syncs], {f"file {stem}": stem for stem in taken})
    pulled = []
    for sync in syncs:
        existing = _file_of(sync, files)
        path = existing.path if existing is not None else folder / f"{slugs[sync.id]}.yaml"
        if path.name == FILE_NAME:
            path = folder / f"{slugs[sync.id]}_sync.yaml"
        pulled.append(_pull_one(sync, path, existing, overwrite=overwrite))
    return pulled


def _pull_one(sync: Sync, path: Path, existing: SyncFile | None, *, overwrite: bool) -> Pulled:
    name = sync.name or sync.id
    present = remote_fields(sync)
    if existing is not None and all(same(key, value, present[key]) for key, value in existing.fields.items()):
        return Pulled(name, path, "unchanged")
    if existing is not None and not overwrite:
        return Pulled(name, path, "kept")
    if present["status"] not in STATUSES:
        del present["status"]  # `error` is the server's word, nobody can ask for it
    _write(path, yaml.safe_dump({"id": sync.id, **present}, sort_keys=False, allow_unicode=True, width=100))
    return Pulled(name, path, "written" if existing is None else "replaced")


def _file_of(sync: Sync, files: list[SyncFile]) -> SyncFile | None:
    bound = next((file for file in files if file.sync_id == sync.id), None)
    return bound or next((file for file in files if file.sync_id is None and file.name == sync.name), None)


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
