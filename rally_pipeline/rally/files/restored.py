"""Files that may have been imported after the backup from which the warehouse was restored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.folders import hash_file, list_inbox
from rally_pipeline.rally.files.manifest import FileStatus
from rally_pipeline.rally.files.problems import FileError
from rally_pipeline.rally.files.tables import import_chunks, import_files

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction

MESSAGE = "counts as imported since the warehouse was restored or copied"
IMPORTED_SINCE = "which files were imported since is not known here"
"""What a copy or an older state cannot tell, so that nothing may be imported from it."""
_COUNTS = ("rows", "imported", "duplicate", "refused", "unknown", "chunks", "uploads")
_UNDECIDED = (FileStatus.STAGING, FileStatus.OPEN)


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A file that waits in the inbox."""

    entity: Entity
    path: Path
    sha256: str
    size: int


def read_inbox(folder: Path) -> tuple[list[InboxFile], list[str]]:
    """Every file of the inbox `folder/<entity>/`, and a line for each that could not be read."""
    found: list[InboxFile] = []
    unread: list[str] = []
    for entity in Entity:
        for path in list_inbox(folder / entity.value):
            try:
                found.append(InboxFile(entity, path, *hash_file(path)))
            except (FileError, OSError) as error:
                unread.append(f"{entity.value}/{path.name}: {error}")
    return found, unread


def assume_imported(tx: Transaction, inbox: list[InboxFile], at: datetime) -> list[tuple[Entity, str]]:
    """Count as imported what the inbox holds and what was in the middle of its import, unless it is known better.

    Returns the files concerned, those of an earlier call included.
    """
    files = import_files.c
    known = {
        (entity, sha256): status
        for entity, sha256, status in tx.rows(select(files.entity, files.sha256, files.status))
    }
    for file in inbox:
        if (file.entity.value, file.sha256) not in known:
            known[file.entity.value, file.sha256] = FileStatus.ASSUMED
            tx.execute(
                insert(import_files).values(
                    entity=file.entity.value,
                    sha256=file.sha256,
                    file_name=file.path.name,
                    bytes=file.size,
                    status=FileStatus.ASSUMED,
                    message=MESSAGE,
                    started_at=at,
                    finished_at=at,
                    **dict.fromkeys(_COUNTS, 0),
                )
            )
    for (entity, sha256), status in known.items():
        if status in _UNDECIDED:
            of_file = (files.entity == entity) & (files.sha256 == sha256)
            values = {"status": FileStatus.ASSUMED, "message": MESSAGE, "finished_at": at}
            tx.execute(update(import_files).where(of_file).values(**values))
            chunks = import_chunks.c
            tx.execute(
                update(import_chunks)
                .where((chunks.entity == entity) & (chunks.sha256 == sha256))
                .values(body=None)
            )
    assumed = select(files.entity, files.file_name).where(files.status == FileStatus.ASSUMED)
    rows = tx.rows(assumed.order_by(files.entity, files.file_name))
    return [(Entity(entity), str(name)) for entity, name in rows]
