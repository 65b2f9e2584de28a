"""The rejects file: what was not imported, as a CSV that a person mends and imports again.

It has the template's columns, and before them notes for the person, whose headers begin with an underscore
and which an import leaves out.
"""

from __future__ import annotations

import csv
import filecmp
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from rally_pipeline.rally.files.folders import hash_file, move_into_place, temporary_file
from rally_pipeline.rally.files.headers import OUTCOME_COLUMN, PROBLEMS_COLUMN, ROW_COLUMN
from rally_pipeline.rally.files.spreadsheets import neutralise_row

if TYPE_CHECKING:
    from rally_pipeline.rally.files.journal import ImportJournal

SUFFIX = ".rejects.csv"


def rejects_path(source: Path) -> Path:
    """Beside the file, named after it: `leads.csv` gives `leads.rejects.csv`, `leads.xlsx`
    `leads.xlsx.rejects.csv`."""
    name = source.name if source.suffix.casefold() != ".csv" else source.stem
    return source.with_name(f"{name.removesuffix('.rejects')}{SUFFIX}")


def write_rejects(journal: ImportJournal, source: Path, *, guarded: bool) -> Path | None:
    """Write the file, or return None if there is nothing to reject.

    A file of that name with other content, which somebody may be mending, is left alone: then the name also
    holds the beginning of a hash.

    Args:
        journal: of the import.
        source: the imported file.
        guarded: put an apostrophe before cells that a spreadsheet would run as formulas.

    Raises:
        OSError: the folder cannot be written to.
    """
    rows = journal.outcomes.read_rejects()
    first = next(rows, None)
    if first is None:
        return None
    path = rejects_path(source)
    with temporary_file(path.parent, path.stem) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerow([ROW_COLUMN, OUTCOME_COLUMN, PROBLEMS_COLUMN, *journal.read_headers()])
            for number, outcome, problems, cells in itertools.chain((first,), rows):
                row = [str(number), outcome.value, "; ".join(problems), *cells]
                writer.writerow(neutralise_row(row) if guarded else row)
        if path.exists() and not filecmp.cmp(path, temporary, shallow=False):
            path = path.with_name(f"{path.name.removesuffix(SUFFIX)}.{hash_file(temporary)[0][:8]}{SUFFIX}")
        move_into_place(temporary, path)
    return path
