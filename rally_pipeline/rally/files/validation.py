"""Every check that can be made on a row before it is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.cells import CellError, Fault, TextReader, shown
from rally_pipeline.rally.files.headers import Layout
from rally_pipeline.rally.files.keys import RowKey, digest, fold
from rally_pipeline.rally.files.problems import Problem
from rally_pipeline.rally.files.scratch import Scratch
from rally_pipeline.rally.files.sources import SourceRow
from rally_pipeline.rally.files.spreadsheets import restore
from rally_pipeline.rally.files.templates import Column
from rally_pipeline.rally.files.workbooks import is_error


class Outcome(StrEnum):
    """What became of a row. At the end of an import every row has one of the last four."""

    STAGED = "staged"
    """Fit to be sent, and not yet decided."""
    IMPORTED = "imported"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """It could not be found out whether Rally has it: for a person to look."""


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row with its cells in the order and form of the template, and what is wrong with it."""

    row: SourceRow
    cells: tuple[str, ...]
    outcome: Outcome
    problems: tuple[Problem, ...] = ()


Report = Callable[[Fault, str, str | None], None]

LINK_FIELDS = {Entity.CONTACTS: "email", Entity.COMPANIES: "name", Entity.DEALS: "name"}
_UNIQUE_BEFORE_SENDING = (Entity.COMPANIES, Entity.DEALS)
"""Rally documents that it skips contacts that exist. For these it says nothing, so a second one is not
risked."""


class RowValidator:
    """Checks the rows of one file, in order.

    Args:
        layout: where the template's columns stand in the file.
        scratch: remembers keys met, and knows what Rally has.
        from_spreadsheet: undo the apostrophes that guard against formulas.
        formula_errors: the cells come from a workbook, where #N/A and the like are errors and not texts.
        pipelines: names of Rally's pipelines by id, as far as known; a deal of the same name in a pipeline
            without a known name counts as the same deal.
    """

    def __init__(
        self,
        layout: Layout,
        scratch: Scratch,
        *,
        from_spreadsheet: bool = True,
        formula_errors: bool = False,
        pipelines: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._layout = layout
        self._entity = layout.template.entity
        self._scratch = scratch
        self._from_spreadsheet = from_spreadsheet
        self._formula_errors = formula_errors
        self._read_pipelines = pipelines
        self._pipelines: dict[str, str] | None = None
        self._key = RowKey(layout.template)
        self._columns = tuple(zip(layout.template.columns, layout.positions, strict=True))

    def check(self, row: SourceRow) -> CheckedRow:
        """Check one row; remembers its key if nothing is wrong with it."""
        problems: list[Problem] = []

        def report(fault: Fault, message: str, column: str | None) -> None:
            problems.append(Problem(fault, message, row.number, row.line, column))

        self._check_width(row, report)
        found = row.cells + ("",) * (self._layout.width - len(row.cells))
        cells: list[str] = []
        for column, position in self._columns:
            text = "" if position is None else found[position]
            if not text and not column.required:
                cells.append("")
                continue
            try:
                cells.append(self._read_cell(column, text))
            except CellError as error:
                cells.append(text)
                report(error.fault, error.message, column.name)
        if problems:
            return CheckedRow(row, tuple(cells), Outcome.REFUSED, tuple(problems))
        duplicate = self._find_duplicate(cells, row.number)
        if duplicate is not None:
            report(Fault.DUPLICATE, duplicate[1], duplicate[0])
            return CheckedRow(row, tuple(cells), Outcome.DUPLICATE, tuple(problems))
        return CheckedRow(row, tuple(cells), Outcome.STAGED)

    def _check_width(self, row: SourceRow, report: Report) -> None:
        layout = self._layout
        found = len(row.cells)
        if found < layout.width and not self._formula_errors:
            report(
                Fault.CELLS, f"{found} cells where the header has {layout.width}: is the row cut off?", None
            )
        elif any(cell.strip() for cell in row.cells[layout.width :]):
            report(
                Fault.CELLS,
                f"{found} cells where the header has {layout.width}: is a delimiter not quoted?",
                None,
            )
        if layout.outcome is not None and layout.outcome < found:
            outcome = row.cells[layout.outcome].strip().casefold()
            if outcome == Outcome.UNKNOWN.value:
                report(
                    Fault.UNDECIDED,
                    "it is not known whether Rally has this row from an earlier import: look there,"
                    " then delete the row or empty this cell",
                    "_outcome",
                )

    def _read_cell(self, column: Column, text: str) -> str:
        if self._from_spreadsheet and text[:1] == "'":
            text = restore(text)
        if not text or not text.strip():
            if column.required:
                raise CellError(Fault.REQUIRED, f"Required field '{column.name}' is empty")
            return text if isinstance(column.read, TextReader) else ""
        if "\0" in text:
            raise CellError(Fault.CHARACTERS, "a NUL character stands in the cell")
        if self._formula_errors and is_error(text):
            raise CellError(Fault.CHARACTERS, f"the cell holds the error {text} of a formula")
        read = column.read(text)
        return read if column.link is None else self._resolve(column.link, read)

    def _resolve(self, entity: Entity, text: str) -> str:
        """The linked record's name in Rally's spelling; the text itself where Rally's records are not known
        here."""
        if not self._scratch.covers(entity):
            return text
        records = self._scratch.find(entity, LINK_FIELDS[entity], text, most=2)
        name = entity.singular.capitalize()
        if not records:
            raise CellError(
                Fault.LINK, f"{name} '{shown(text)}' not found; import it first, or mend the spelling"
            )
        if len(records) > 1:
            raise CellError(
                Fault.AMBIGUOUS,
                f"{name} '{shown(text)}' exists more than once, so Rally could link the wrong one",
            )
        return records[0].text

    def _find_duplicate(self, cells: Sequence[str], number: int) -> tuple[str, str] | None:
        """Column and message, if the row is in the file or, where Rally might not notice, in Rally
        already."""
        key = self._key(cells)
        if key is None:
            return None
        if self._entity in _UNIQUE_BEFORE_SENDING and self._scratch.covers(self._entity):
            existing = self._find_existing(key)
            if existing is not None:
                return self._duplicate(key, f"it is in Rally already, as {existing}")
        earlier = self._scratch.meet(digest([part for pair in key.items() for part in pair]), number)
        return None if earlier is None else self._duplicate(key, f"the same as row {earlier}")

    def _duplicate(self, key: Mapping[str, str], reason: str) -> tuple[str, str]:
        column, text = next(iter(key.items()))
        return column, f"Duplicate {self._entity.singular} with {column} '{shown(text)}': {reason}"

    def _find_existing(self, key: Mapping[str, str]) -> str | None:
        field, text = next(iter(key.items()))
        for record in self._scratch.find(self._entity, field, text):
            pipeline = None if record.detail is None else self._pipeline_name(record.detail)
            if pipeline is None or pipeline == key.get("pipeline_name"):
                return record.id
        return None

    def _pipeline_name(self, pipeline_id: str) -> str | None:
        """Asked for only where two deals share a name: most files never need it."""
        if self._pipelines is None:
            self._pipelines = {key: fold(name) for key, name in self._read_pipelines().items()}
        return self._pipelines.get(pipeline_id)
