"""The rejects file: what was not imported, as a CSV that a person mends and imports again.

It has the template's columns, and before them notes for the person, whose headers begin with an underscore
and which an import leaves out.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from rally_pipeline.rally.files.folders import writing
from rally_pipeline.rally.files.headers import OUTCOME_COLUMN, PROBLEMS_COLUMN, ROW_COLUMN
from rally_pipeline.rally.files.spreadsheets import neutralise_row

if TYPE_CHECKING:
    from rally_pipeline.rally.files.journal import ImportJournal

SUFFIX = ".rejects.csv"


def rejects_path(source: Path) -> Path:
    """Beside the file, named after it: `leads.csv` gives `leads.rejects.csv`."""
    return source.with_name(f"{source.stem.removesuffix('.rejects')}{SUFFIX}")


def write_rejects(journal: ImportJournal, source: Path, *, guarded: bool) -> Path | None:
    """Write the file, or return None if there is nothing to reject.

    Args:
        journal: of the import.
        source: the imported file; the rejects go beside it. If it is itself that rejects file, it is
        replaced. guarded: put an apostrophe before cells that a spreadsheet would run as formulas.

    Raises:
        OSError: the folder cannot be written to.
    """
    rows = journal.outcomes.read_rejects()
    first = next(rows, None)
    if first is None:
        return None
    path = rejects_path(source)
    with writing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow([ROW_COLUMN, OUTCOME_COLUMN, PROBLEMS_COLUMN, *journal.read_headers()])
        while first is not None:
            number, outcome, problems, cells = first
            row = [str(number), outcome.value, "; ".join(problems), *cells]
            writer.writerow(neutralise_row(row) if guarded else row)
            first = next(rows, None)
    return path
