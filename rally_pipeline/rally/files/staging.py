"""From the rows of a file to the uploads and rejects that are stored before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rally_pipeline.rally.files.cells import Fault
from rally_pipeline.rally.files.chunks import Chunk, ChunkCutter, ChunkLimits, RowSizeError
from rally_pipeline.rally.files.manifest import PlannedChunk
from rally_pipeline.rally.files.matching import RecognitionKey
from rally_pipeline.rally.files.problems import Problem
from rally_pipeline.rally.files.validation import CheckedRow, Outcome

if TYPE_CHECKING:
    from rally_pipeline.rally.files.sources import Source
    from rally_pipeline.rally.files.templates import Template
    from rally_pipeline.rally.files.validation import RowValidator

_REJECTS_AT_ONCE = 1_000


@dataclass(slots=True)
class Part:
    """What is stored in one transaction."""

    planned: PlannedChunk | None = None
    rejected: list[CheckedRow] = field(default_factory=list)


class Staging:
    """Reads a source once, in order, and hands out parts; only one part is in memory at a time."""

    def __init__(self, template: Template, validator: RowValidator, limits: ChunkLimits) -> None:
        self._validator = validator
        self._cutter = ChunkCutter(template.headers, limits)
        self._recognise = RecognitionKey(template)
        self._limits = limits
        self._places: list[tuple[int, bytes]] = []

    def parts(self, source: Source) -> Iterator[Part]:
        """Uploads and rejects until the source ends.

        Raises:
            FileError: the file is damaged; what was handed out before must not be sent.
        """
        rejected: list[CheckedRow] = []
        for row in source.rows():
            checked = self._validator.check(row)
            if checked.outcome is Outcome.STAGED:
                full, checked = self._take(checked)
                if full is not None:
                    yield Part(full, rejected)
                    rejected = []
            if checked.outcome is not Outcome.STAGED:
                rejected.append(checked)
            if len(rejected) >= _REJECTS_AT_ONCE:
                yield Part(None, rejected)
                rejected = []
        last = self._cutter.finish()
        if last is not None or rejected:
            yield Part(self._planned(last) if last else None, rejected)

    def _take(self, checked: CheckedRow) -> tuple[PlannedChunk | None, CheckedRow]:
        """Add a row to the upload at hand; returns the upload that was full, and the row, refused if it is
        too large."""
        row = checked.row
        try:
            full = self._cutter.add(row.number, checked.cells)
        except RowSizeError as error:
            problem = Problem(Fault.SIZE, str(error), row.number, row.line)
            return None, replace(checked, outcome=Outcome.REFUSED, problems=(problem,))
        planned = None if full is None else self._planned(full)
        self._places.append((row.line, self._recognise(checked.cells)))
        return planned, checked

    def _planned(self, chunk: Chunk) -> PlannedChunk:
        lines, keys = zip(*self._places, strict=True)
        self._places = []
        return PlannedChunk(chunk, lines, keys)
