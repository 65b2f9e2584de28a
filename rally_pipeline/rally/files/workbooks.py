"""XLSX files: checked before they are parsed, read and written as streams.

An XLSX file is a ZIP archive of XML. Before the first cell is read, the archive's directory is held against
bounds (decompression bombs) and the beginning of every XML member is parsed with DTDs forbidden (external
entities, entity bombs). Members are only read, never extracted, so their names cannot leave any folder.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from rally_pipeline.rally.files.cells import Fault
from rally_pipeline.rally.files.problems import FileError, Problem
from rally_pipeline.rally.files.sources import MAX_COLUMNS, Dialect, SourceRow

MAX_MEMBERS = 1_000
MAX_MEMBER_BYTES = 1 << 30
MAX_TOTAL_BYTES = 2 << 30
MAX_SHARED_STRINGS_BYTES = 128 << 20
"""The one member that a reader must hold in memory as a whole."""
MAX_RATIO = 200
"""Real sheets compress 5 to 40 times, blank ones about 100 times, bombs 1,000 times."""
_RATIO_FREE_BYTES = 16 << 20
"""Below this size a member may compress as well as it likes: it cannot hurt."""
_SHARED_STRINGS = "xl/sharedStrings.xml"
_ERRORS = frozenset({"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A"})


def check_archive(file: BinaryIO) -> None:
    """Refuse an archive that is damaged, larger than it should be, or holds XML that reaches outside itself.

    Raises:
        FileError: with the member and the bound.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _check_directory(archive.infolist())
            for member in archive.infolist():
                if member.filename.lower().endswith((".xml", ".rels", ".vml")):
                    _check_markup(archive, member)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise FileError(
            f"this is no readable XLSX file ({error}): save it again as .xlsx or as CSV UTF-8"
        ) from None
    finally:
        file.seek(0)


def _check_directory(members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS:
        raise FileError(f"the workbook has {len(members):,} parts; at most {MAX_MEMBERS:,} are opened")
    if len({member.filename for member in members}) != len(members):
        raise FileError("the workbook names a part twice: it was not made by a spreadsheet program")
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL_BYTES:
        raise FileError(f"the workbook unpacks to {total:,} bytes; at most {MAX_TOTAL_BYTES:,} are read")
    for member in members:
        most = MAX_SHARED_STRINGS_BYTES if member.filename == _SHARED_STRINGS else MAX_MEMBER_BYTES
        if member.file_size > most:
            raise FileError(
                f"part {member.filename!r:.80} unpacks to {member.file_size:,} bytes; at most {most:,}"
            )
        ratio = member.file_size / max(1, member.compress_size)
        if member.file_size > _RATIO_FREE_BYTES and ratio > MAX_RATIO:
            raise FileError(
                f"part {member.filename!r:.80} unpacks to {ratio:,.0f} times its size, above {MAX_RATIO}"
            )


def _check_markup(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    # A DTD can only stand before the first element, so the first event of a parse that forbids DTDs decides.
    try:
        with archive.open(member) as stream:
            next(iter(iterparse(stream, events=("start",), forbid_dtd=True)), None)
    except DefusedXmlException:
        raise FileError(
            f"part {member.filename!r:.80} has a document type definition, as no spreadsheet has: not opened"
        ) from None
    except ParseError as error:
        raise FileError(f"part {member.filename!r:.80} is not well-formed XML ({error})") from None


@contextlib.contextmanager
def open_workbook(file: BinaryIO) -> Iterator[WorkbookSource]:
    """The first sheet of a workbook as a source; formulas count as the values that were last computed.

    Raises:
        FileError: not safe, not readable, or without a header.
    """
    import openpyxl

    check_archive(file)
    try:
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
    except FileError:
        raise
    except Exception as error:  # noqa: BLE001 (a hostile file can make the parser raise anything)
        raise FileError(
            f"the workbook cannot be read ({type(error).__name__}): save it again as .xlsx"
        ) from None
    try:
        yield WorkbookSource(workbook)
    finally:
        workbook.close()


class WorkbookSource:
    """The rows of the first sheet, as text."""

    def __init__(self, workbook: Any) -> None:
        if not workbook.worksheets:
            raise FileError("the workbook has no sheet")
        self._sheet = workbook.worksheets[0]
        # What the sheet says of its own size can be wrong, and then cells would be left out.
        self._sheet.reset_dimensions()
        self.dialect = Dialect("xlsx", "utf-8", ",")
        self._records = self._read_records()
        header = next((row for row in self._records if any(row.cells)), None)
        if header is None:
            raise FileError(f"sheet '{self._sheet.title}' is blank: the first row must hold the column names")
        self.headers = header.cells

    def rows(self) -> Iterator[SourceRow]:
        return (row for row in self._records if any(cell.strip() for cell in row.cells))

    def _read_records(self) -> Iterator[SourceRow]:
        rows = enumerate(self._sheet.iter_rows(values_only=True), start=1)
        while True:
            try:
                number, values = next(rows)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 (as above)
                raise FileError(
                    f"the sheet is damaged ({type(error).__name__}): save it again as .xlsx"
                ) from None
            cells = _texts(values)
            if len(cells) > MAX_COLUMNS:
                raise FileError([Problem(Fault.CELLS, f"{len(cells):,} cells in one row", number, number)])
            yield SourceRow(number, number, cells)


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    cells = [cell_text(value) for value in values]
    while cells and not cells[-1]:
        cells.pop()
    return tuple(cells)


def cell_text(value: object) -> str:
    """A cell's value as it would stand in a CSV file: ISO 8601 for dates, plain digits for numbers.

    Spreadsheets know no time zones; their times are taken as UTC.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return (
            str(int(value)) if value.is_integer() and abs(value) < 1e15 else format(Decimal(repr(value)), "f")
        )
    if isinstance(value, datetime):
        if value.hour == value.minute == value.second == value.microsecond == 0:
            return value.date().isoformat()
        return f"{value.isoformat()}Z"
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def is_error(cell: str) -> bool:
    """Whether a cell holds the error of a formula, such as #N/A."""
    return cell in _ERRORS


def find_formula(path: Path) -> str | None:
    """The coordinate of the first cell of any sheet that is a formula, or None."""
    import openpyxl

    with path.open("rb") as file:
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=False, keep_links=False)
        for sheet in workbook.worksheets:
            for cell in (cell for row in sheet.iter_rows() for cell in row):
                if cell.data_type == "f":
                    return f"{sheet.title}!{cell.coordinate}"
    return None


def write_workbook(path: Path, title: str, headers: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A workbook of one sheet with every cell as text, so that nothing in it can be taken for a formula or
    reshaped as a number or date. Control characters, which XLSX cannot hold, become U+FFFD.
    """
    import openpyxl
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet(title)

    def cell(text: str) -> Any:
        made = WriteOnlyCell(sheet, value=ILLEGAL_CHARACTERS_RE.sub("\ufffd", text))
        made.data_type = "s"
        return made

    sheet.append([cell(header) for header in headers])
    for row in rows:
        sheet.append([cell(text) if text else None for text in row])
    workbook.save(path)
