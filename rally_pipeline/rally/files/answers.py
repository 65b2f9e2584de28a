"""Rally's answer to an upload: counts, and texts that name rows.

The page documents `Row <n>: <text>` but not what `n` counts, nor that every skipped row has a text. So the
counts are believed, and a text is tied to a row only where what it says fits that row: of all ways of
counting, only those remain that no text contradicts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from rally_pipeline.rally.files.cells import Fault
from rally_pipeline.rally.files.keys import fold

MAX_TEXT_CHARACTERS = 2_000


class ImportResult(msgspec.Struct, frozen=True, rename="camel"):
    """The API's `ImportResultDto`."""

    total_rows: int
    imported: int
    skipped: int
    errors: list[str] = []

    def adds_up(self, sent: int) -> bool:
        """Whether the counts can be true for an upload of `sent` rows."""
        parts = (self.imported, self.skipped)
        return min(parts) >= 0 and sum(parts) == self.total_rows == sent


class Numbering(StrEnum):
    """What the `n` of `Row n` may count."""

    DATA = "data"
    """Rows below the header, from 1."""
    FILE = "file"
    """Rows with the header, which is row 1."""
    LINE = "line"
    """Lines of the text; a cell with line breaks makes them run ahead of the rows."""
    INDEX = "index"
    """Rows below the header, from 0."""


@dataclass(frozen=True, slots=True)
class RowText:
    """One error text, taken apart."""

    number: int | None
    fault: Fault
    message: str
    column: str | None = None
    value: str | None = None

    @property
    def is_duplicate(self) -> bool:
        return self.fault is Fault.DUPLICATE

    def fits(self, cells: Mapping[str, str]) -> bool | None:
        """Whether the text can be about a row with these cells; None if it says nothing that could tell."""
        if self.column is None:
            return None
        cell = cells.get(self.column)
        if cell is None:
            return None
        if self.fault is Fault.REQUIRED:
            return not cell.strip()
        if self.value is None:
            return bool(cell.strip())
        return fold(cell) == fold(self.value)


_NUMBERED = re.compile(r"Row (\d{1,9}): ?(.*)", re.DOTALL | re.IGNORECASE)
# Each pattern is anchored and has one open part, so that matching stays linear in the text.
_PATTERNS: tuple[tuple[re.Pattern[str], Fault, str | None], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), fault, column)
    for pattern, fault, column in (
        (r"Invalid email format '(?P<value>.*)'", Fault.EMAIL, "email"),
        (r"Duplicate \w+ with (?P<column>\w+) '(?P<value>.*)'", Fault.DUPLICATE, None),
        (r"Required field '(?P<column>\w+)' is empty", Fault.REQUIRED, None),
        (r"Company '(?P<value>.*)' not found", Fault.LINK, "company_name"),
        (r"Contact '(?P<value>.*)' not found", Fault.LINK, "contact_email"),
        (r"Deal '(?P<value>.*)' not found", Fault.LINK, "deal_name"),
        (r"Pipeline '(?P<value>.*)' not found", Fault.LINK, "pipeline_name"),
        (r"Stage '(?P<value>.*)' not found", Fault.LINK, "stage_name"),
        (r"Invalid date format in '(?P<column>\w+)'", Fault.DATE, None),
        (r"Invalid (?P<column>\w+) value '(?P<value>.*)'", Fault.ENUMERATION, None),
        (r"Duplicate\b.*", Fault.DUPLICATE, None),
    )
)


def read_text(text: str) -> RowText:
    """Take one error text apart; what is not documented stays whole, as `Fault.OTHER`."""
    text = text[:MAX_TEXT_CHARACTERS]
    numbered = _NUMBERED.fullmatch(text)
    number, message = (int(numbered[1]), numbered[2]) if numbered else (None, text)
    for pattern, fault, column in _PATTERNS:
        found = pattern.fullmatch(message.strip())
        if found:
            parts = found.groupdict()
            return RowText(number, fault, message, parts.get("column") or column, parts.get("value"))
    return RowText(number, Fault.OTHER, message)


@dataclass(frozen=True, slots=True)
class Attribution:
    """Error texts tied to the rows of an upload."""

    texts: dict[int, list[RowText]]
    """By position of the row in the upload, from 0."""
    loose: list[tuple[RowText, tuple[int, ...]]]
    """Texts that could not be tied to one row, with the positions that are possible."""
    numbering: Numbering | None
    """The one way of counting that fits, if there is just one; it helps with later uploads."""


def attribute(
    texts: Sequence[str],
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    known: Numbering | None = None,
) -> Attribution:
    """Tie error texts to rows.

    Args:
        texts: `ImportResult.errors`.
        headers: of the upload.
        rows: of the upload, in order.
        known: how Rally counted in an earlier upload; it decides where this one leaves more than one way.
    """
    read = [_in_terms_of(headers, read_text(text)) for text in texts]
    positions = {numbering: _Positions(numbering, rows) for numbering in Numbering}
    fitting = [
        numbering
        for numbering in Numbering
        if all(_contradiction(text, headers, rows, positions[numbering]) is False for text in read)
    ]
    if known in fitting:
        fitting = [known]
    # Without line breaks in cells two ways of counting are one and the same.
    distinct: dict[tuple[int | None, ...], Numbering] = {}
    for numbering in fitting:
        distinct.setdefault(tuple(positions[numbering].find(text.number) for text in read), numbering)
    tied: dict[int, list[RowText]] = {}
    loose: list[tuple[RowText, tuple[int, ...]]] = []
    for text in read:
        possible = sorted({p for n in fitting if (p := positions[n].find(text.number)) is not None})
        if len(possible) != 1:
            possible = _fitting_rows(text, headers, rows) or possible
        if len(possible) == 1:
            tied.setdefault(possible[0], []).append(text)
        else:
            loose.append((text, tuple(possible)))
    settled = next(iter(distinct.values())) if len(distinct) == 1 and read and not loose else None
    return Attribution(tied, loose, settled)


def _in_terms_of(headers: Sequence[str], text: RowText) -> RowText:
    """Deals and activities have no column `email`: there the address is that of the linked contact."""
    if text.column == "email" and "email" not in headers and "contact_email" in headers:
        return replace(text, column="contact_email")
    return text


def _fitting_rows(text: RowText, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """The rows that hold the value that the text quotes."""
    if text.value is None or text.column not in headers:
        return []
    place, value = headers.index(text.column), fold(text.value)
    return [position for position, cells in enumerate(rows) if fold(cells[place]) == value]


class _Positions:
    """The position in the upload that a number stands for, in one way of counting."""

    def __init__(self, numbering: Numbering, rows: Sequence[Sequence[str]]) -> None:
        self._count = len(rows)
        self._lines: dict[int, int] | None = None
        self._shift = {Numbering.DATA: 1, Numbering.FILE: 2, Numbering.INDEX: 0}.get(numbering, 0)
        if numbering is Numbering.LINE:
            self._lines, line = {}, 2
            for position, cells in enumerate(rows):
                self._lines[line] = position
                line += 1 + sum(_line_breaks(cell) for cell in cells)

    def find(self, number: int | None) -> int | None:
        if number is None:
            return None
        if self._lines is not None:
            return self._lines.get(number)
        position = number - self._shift
        return position if 0 <= position < self._count else None


def _line_breaks(cell: str) -> int:
    if "\n" not in cell and "\r" not in cell:
        return 0
    return cell.replace("\r\n", "\n").replace("\r", "\n").count("\n")


def _contradiction(
    text: RowText, headers: Sequence[str], rows: Sequence[Sequence[str]], positions: _Positions
) -> bool:
    """Whether this way of counting makes the text say something untrue."""
    if text.number is None:
        return False
    position = positions.find(text.number)
    if position is None:
        return True
    return text.fits(dict(zip(headers, rows[position], strict=False))) is False
