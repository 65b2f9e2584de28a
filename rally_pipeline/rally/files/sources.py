"""An import file as a stream of rows, whatever its encoding, delimiter and line endings. Memory does not grow
with it."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from rally_pipeline.rally.files.cells import Fault
from rally_pipeline.rally.files.problems import FileError, Problem

MAX_CELL_CHARACTERS = 10_000_000
"""An unclosed quote swallows the rest of the file: it is noticed here instead of in memory."""
MAX_LINE_CHARACTERS = 16_000_000
MAX_COLUMNS = 1_000
_BLOCK = 1 << 20
_DELIMITERS = ",;\t|"
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_XLSX_SIGNATURE = b"PK\x03\x04"
_OLD_EXCEL_SIGNATURE = b"\xd0\xcf\x11\xe0"


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as it stands in the file. `number` counts as a spreadsheet does: the header is row 1 and blank
    rows count; `line` is the line of the text on which the row begins (for XLSX the same as `number`)."""

    number: int
    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the file is written, as detected or told."""

    format: str
    encoding: str
    delimiter: str


class Source(Protocol):
    """An open import file."""

    dialect: Dialect
    headers: tuple[str, ...]

    def rows(self) -> Iterator[SourceRow]:
        """The rows after the header, without those whose cells are all blank. Can be read once.

        Raises:
            FileError: the file is damaged from here on, so that no later row can be trusted either.
        """
        ...


@contextlib.contextmanager
def open_source(path: Path, expected: Collection[str], *, encoding: str | None = None) -> Iterator[Source]:
    """Open a CSV or XLSX file, told apart by content and not by name.

    Args:
        path: the file.
        expected: header names that it may have; they decide between delimiters.
        encoding: how the text is encoded; None: UTF-8, or what a byte-order mark says.

    Raises:
        FileError: empty, no text, no header, wrong encoding, or a workbook that is not safe to open.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if not start:
            raise FileError("the file is empty: the first row must hold the column names of the template")
        if start == _OLD_EXCEL_SIGNATURE:
            raise FileError("this is an old Excel workbook (.xls): save it as .xlsx or CSV UTF-8")
        if start == _XLSX_SIGNATURE:
            from rally_pipeline.rally.files.workbooks import open_workbook

            with open_workbook(file) as workbook:
                yield workbook
        else:
            yield CsvSource(file, expected, encoding=encoding)


class CsvSource:
    """A CSV file; quoting is RFC 4180 and strict."""

    def __init__(self, file: BinaryIO, expected: Collection[str], *, encoding: str | None = None) -> None:
        # The module's limit is one for the process; ours is the larger one.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARACTERS))
        self._file = file
        self._encoding = _check_encoding(encoding) or _detect_encoding(file)
        text = io.TextIOWrapper(file, encoding=self._encoding, errors="strict", newline="")
        self._lines = self._read_lines(text)
        first, blank = self._read_first_line()
        self._skipped_lines = blank
        told = first.strip()
        if told[:4].lower() == "sep=" and len(told) == 5:
            # Excel's own hint, which it does not show as a row.
            delimiter = told[4]
            first, more = self._read_first_line()
            blank += more
            self._skipped_lines += more + 1
        else:
            delimiter = _detect_delimiter(first, expected)
        self.dialect = Dialect("csv", self._encoding, delimiter)
        self._records = csv.reader(itertools.chain((first,), self._lines), delimiter=delimiter, strict=True)
        self._number = blank
        header = next(self._read_records(), None)
        if header is None:
            raise FileError(
                "the file has no header row: the first row must hold the column names of the template"
            )
        self.headers = header.cells

    def rows(self) -> Iterator[SourceRow]:
        return (row for row in self._read_records() if any(cell.strip() for cell in row.cells))

    def _read_records(self) -> Iterator[SourceRow]:
        while True:
            line = self._skipped_lines + self._records.line_num + 1
            try:
                cells = next(self._records)
            except StopIteration:
                return
            except csv.Error as error:
                raise FileError([self._quoting_problem(line, str(error))]) from None
            self._number += 1
            if len(cells) > MAX_COLUMNS:
                problem = (
                    f"{len(cells):,} cells in one row: '{self.dialect.delimiter}' cannot be the delimiter"
                )
                raise FileError([Problem(Fault.CELLS, problem, self._number, line)])
            yield SourceRow(self._number, line, tuple(cells))

    def _quoting_problem(self, line: int, reason: str) -> Problem:
        if "field larger than field limit" in reason:
            text = "a quoted cell that begins here never ends: a closing quote is missing"
        elif "unexpected end of data" in reason:
            text = "the file ends inside a quoted cell: it is cut off, or a closing quote is missing"
        elif "expected after" in reason:
            text = 'text after a closing quote: a quote inside a quoted cell is written twice ("")'
        else:
            text = f"the quoting is broken ({reason})"
        return Problem(Fault.CELLS, f"{text}; the rows after it cannot be told apart", self._number + 1, line)

    def _read_lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        number = 0
        try:
            while line := text.readline(MAX_LINE_CHARACTERS):
                number += 1
                if len(line) >= MAX_LINE_CHARACTERS:
                    raise FileError(f"line {number} is longer than {MAX_LINE_CHARACTERS:,} characters")
                yield line
        except UnicodeError:
            raise FileError([_locate_encoding_error(self._file, self._encoding)]) from None

    def _read_first_line(self) -> tuple[str, int]:
        """The first line that is not blank, and how many blank ones stood before it."""
        for skipped, line in enumerate(self._lines):
            if line.strip():
                return line, skipped
        raise FileError("the file is blank: the first row must hold the column names of the template")


def _check_encoding(encoding: str | None) -> str | None:
    if encoding is None:
        return None
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise FileError(
            f"'{encoding}' is not an encoding that is known here; try cp1252 or latin-1"
        ) from None
    return "utf-8-sig" if name == "utf-8" else name


def _detect_encoding(file: BinaryIO) -> str:
    start = file.read(4)
    file.seek(0)
    return next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")


def _detect_delimiter(header: str, expected: Collection[str]) -> str:
    """The delimiter that gives the most known column names; among equals the one that gives the most
    cells."""
    names = {name.casefold() for name in expected}

    def score(delimiter: str) -> tuple[int, int]:
        try:
            cells = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            return (0, 0)
        return sum(cell.strip().casefold() in names for cell in cells), len(cells)

    return max(_DELIMITERS, key=score)


def _locate_encoding_error(file: BinaryIO, encoding: str) -> Problem:
    """Read once more, to say on which line and in which byte the text stops being what it should be."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    lines = 1
    for block in itertools.chain(_blocks(file), (b"",)):
        try:
            lines += decoder.decode(block, final=not block).count("\n")
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            lines += before.count(b"\n")
            bad = error.object[error.start : error.start + 1]
            return Problem(
                Fault.CHARACTERS, _encoding_message(encoding, bad, error.object, error.start), None, lines
            )
    return Problem(Fault.CHARACTERS, f"the file is not {encoding}", None, lines)


def _encoding_message(encoding: str, bad: bytes, text: bytes, position: int) -> str:
    code = f"byte 0x{bad.hex().upper()}" if bad else "the end of the file"
    if not encoding.startswith("utf-8"):
        return f"{code} is not valid {encoding}"
    before = text[max(0, position - 20) : position].decode("cp1252", "replace").split()
    after = text[position : position + 20].decode("cp1252", "replace").split()
    joined = position > 0 and not text[position - 1 : position].isspace()
    word = (before[-1] if before and joined else "") + (after[0] if after else "")
    return (
        f"{code} is not UTF-8; read as Windows-1252 the text there is '{word}'."
        " Save the file as CSV UTF-8, or name its encoding (--encoding cp1252)"
    )


def _blocks(file: BinaryIO) -> Iterable[bytes]:
    return iter(lambda: file.read(_BLOCK), b"")
