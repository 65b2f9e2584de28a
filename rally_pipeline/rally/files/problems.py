"""What is wrong with a file or a row, in words that let a person mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rally_pipeline.rally.files.cells import Fault


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `row` is the number that a spreadsheet shows (the header is row 1), `line` the line
    of the text file on which that row begins; both are None where the whole file is meant."""

    fault: Fault
    message: str
    row: int | None = None
    line: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = "" if self.row is None else f"row {self.row}"
        if self.line is not None and self.line != self.row:
            place = f"{place} (line {self.line})" if place else f"line {self.line}"
        if self.column is not None:
            place = f"{place}, column {self.column}" if place else f"column {self.column}"
        return f"{place}: {self.message}" if place else self.message


class FileError(Exception):
    """A file cannot be read as an import at all, so nothing of it was sent. `str()` is one line."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems: tuple[Problem, ...] = (
            (Problem(Fault.OTHER, problems),) if isinstance(problems, str) else tuple(problems)
        )
        super().__init__("; ".join(str(problem) for problem in self.problems))
