"""Rows into uploads: UTF-8, comma, RFC 4180 quoting, no byte-order mark, cut at row ends below Rally's
limit."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

RALLY_LIMIT_BYTES = 10_000_000
"""The API says 10 MB without saying which; this is the smaller reading."""
MULTIPART_BYTES = 1_000
"""Reserved for the boundaries and headers that wrap the file in the request."""
MAX_CHUNK_BYTES = RALLY_LIMIT_BYTES - MULTIPART_BYTES
MAX_CHUNK_ROWS = 10_000
"""Rally may work through an upload row by row within one request: fewer rows answer sooner, and less is in
doubt when an answer is lost."""


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Both bounds hold for every chunk; a chunk's bytes include its header line."""

    max_bytes: int = MAX_CHUNK_BYTES
    max_rows: int = MAX_CHUNK_ROWS


@dataclass(frozen=True, slots=True)
class Chunk:
    """One upload, fixed: the body and the rows of the source that are in it, in order."""

    body: bytes
    rows: tuple[int, ...]

    @property
    def sha256(self) -> str:
        return sha256(self.body).hexdigest()


class RowEncoder:
    """Encodes single rows as CSV lines."""

    def __init__(self) -> None:
        self._text = ""
        self._writer = csv.writer(self, lineterminator="\r\n")

    def write(self, text: str) -> None:
        """Takes what the CSV writer produces."""
        self._text = text

    def encode(self, cells: Sequence[str]) -> bytes:
        """One line with its ending. Cells hold no lone surrogates."""
        self._writer.writerow(cells)
        return self._text.encode()


@dataclass(slots=True)
class ChunkCutter:
    """Collects rows and hands out a chunk whenever the next row would not fit.

    Cutting is greedy and depends on the rows and limits alone, so the same rows always give the same chunks.
    """

    headers: Sequence[str]
    limits: ChunkLimits = field(default_factory=ChunkLimits)
    _encoder: RowEncoder = field(default_factory=RowEncoder, init=False)
    _lines: list[bytes] = field(default_factory=list, init=False)
    _rows: list[int] = field(default_factory=list, init=False)
    _bytes: int = field(default=0, init=False)
    _header: bytes = field(default=b"", init=False)

    def __post_init__(self) -> None:
        self._header = self._encoder.encode(self.headers)

    def add(self, number: int, cells: Sequence[str]) -> Chunk | None:
        """Take in a row; returns the chunk that is full without it, if it is.

        Raises:
            RowSizeError: the row does not fit a chunk of its own; nothing is taken in.
        """
        line = self._encoder.encode(cells)
        alone = len(self._header) + len(line)
        if alone > self.limits.max_bytes:
            raise RowSizeError(alone, self.limits.max_bytes)
        full = None
        if self._rows and (
            self._bytes + alone > self.limits.max_bytes or len(self._rows) >= self.limits.max_rows
        ):
            full = self.finish()
        self._lines.append(line)
        self._rows.append(number)
        self._bytes += len(line)
        return full

    def finish(self) -> Chunk | None:
        """The rows taken in since the last chunk, or None if there are none."""
        if not self._rows:
            return None
        chunk = Chunk(self._header + b"".join(self._lines), tuple(self._rows))
        self._lines, self._rows, self._bytes = [], [], 0
        return chunk


class RowSizeError(Exception):
    """A row that no upload can hold."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"the row has {size:,} bytes as CSV; an upload can hold {most:,}")


def read_chunk(body: bytes) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of a chunk's body."""
    records = csv.reader(io.StringIO(body.decode(), newline=""), strict=True)
    headers = next(records)
    return headers, list(records)
