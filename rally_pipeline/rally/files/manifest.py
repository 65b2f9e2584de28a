"""The words in which imports are remembered: files, uploads, and what was decided about their rows.

States of an upload:

    planned ──► sending ──► done        a definite answer accounts for every row
                   │ ├────► refused     a definite answer refuses the upload as a whole
                   │ └────► split       it was too large, and goes out again in parts
                   └──► unknown ──► settled   what was found is imported, what is missing goes out in a new
                   upload
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from rally_pipeline.rally.files.chunks import Chunk, read_chunk
from rally_pipeline.rally.files.matching import KEY_BYTES
from rally_pipeline.rally.files.problems import Problem
from rally_pipeline.rally.files.validation import Outcome

if TYPE_CHECKING:
    from rally_pipeline.rally.files.answers import ImportResult, Numbering


class FileStatus(StrEnum):
    """Where the import of a file stands."""

    STAGING = "staging"
    """Being read; nothing was sent."""
    OPEN = "open"
    """Fixed, and perhaps partly sent: to be gone on with."""
    DONE = "done"
    REFUSED = "refused"
    """The file as a whole; nothing was sent."""
    ASSUMED = "assumed"
    """Counts as imported since the warehouse was restored; what became of its rows is not known here."""


class ChunkState(StrEnum):
    """Where an upload stands."""

    PLANNED = "planned"
    SENDING = "sending"
    UNKNOWN = "unknown"
    DONE = "done"
    SETTLED = "settled"
    REFUSED = "refused"
    SPLIT = "split"


OPEN_STATES = (ChunkState.PLANNED, ChunkState.SENDING, ChunkState.UNKNOWN)
LETTERS = {Outcome.IMPORTED: b"i", Outcome.DUPLICATE: b"d", Outcome.REFUSED: b"r", Outcome.UNKNOWN: b"u"}
"""How the outcomes of an upload are stored, one letter a row; `-` is a row that another upload carries."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A row of `import_files`."""

    file_name: str
    status: FileStatus
    message: str | None
    rows: int
    imported: int
    duplicate: int
    refused: int
    unknown: int
    chunks: int
    uploads: int
    upload_limit: int | None
    numbering: str | None
    rejects_file: str | None
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A row of `import_chunks` that is still to be decided."""

    number: int
    round: int
    state: ChunkState
    body: bytes
    rows: tuple[tuple[int, int], ...]
    """Number and line of each row in the file."""
    keys: tuple[bytes, ...]
    sent_at: datetime | None

    def read(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows of the body."""
        return read_chunk(self.body)


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """An upload to be stored."""

    chunk: Chunk
    lines: tuple[int, ...]
    keys: tuple[bytes, ...]


@dataclass(slots=True)
class Decision:
    """What became of the rows of an upload, by position, with the problems of those that were not
    imported."""

    state: ChunkState
    outcomes: list[Outcome]
    problems: dict[int, list[Problem]] = field(default_factory=dict)
    result: ImportResult | None = None
    message: str | None = None
    numbering: Numbering | None = None
    resend: PlannedChunk | None = None


def pack_rows(numbers: Sequence[int], lines: Sequence[int]) -> bytes:
    """Number and line of each row in 16 bytes."""
    return array("q", (value for pair in zip(numbers, lines, strict=True) for value in pair)).tobytes()


def unpack_rows(packed: bytes) -> tuple[tuple[int, int], ...]:
    """What `pack_rows` made."""
    values = array("q")
    values.frombytes(bytes(packed))
    return tuple(zip(values[::2], values[1::2], strict=True))


def cut_keys(keys: bytes) -> tuple[bytes, ...]:
    """The keys of an upload's rows."""
    keys = bytes(keys)
    return tuple(keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES))
