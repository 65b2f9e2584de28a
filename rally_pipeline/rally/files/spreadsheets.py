"""Formula injection: texts that a spreadsheet program would run, made harmless on the way to people and given
back on the way in.

A cell that begins with one of `= + - @`, tab, carriage return or NUL gets an apostrophe in front (OWASP ASVS
5.0, 1.2.10). So does a cell in which only apostrophes stand before such a character; therefore taking one
apostrophe away from exactly those cells gives back every text, whatever it was.
"""

from __future__ import annotations

from collections.abc import Iterable

_TRIGGERS = frozenset("=+-@\t\r\0")
_MARK = "'"


def is_risky(cell: str) -> bool:
    """Whether a spreadsheet program could take the cell for a formula."""
    return bool(cell) and cell[0] in _TRIGGERS


def neutralise(cell: str) -> str:
    """The cell as it may stand in a file that people open."""
    if cell and (cell[0] in _TRIGGERS or (cell[0] == _MARK and is_risky(cell.lstrip(_MARK)))):
        return _MARK + cell
    return cell


def restore(cell: str) -> str:
    """The inverse of `neutralise`; cells that it never makes are left alone."""
    return cell[1:] if cell[:1] == _MARK and is_risky(cell.lstrip(_MARK)) else cell


def neutralise_row(cells: Iterable[str]) -> list[str]:
    """A whole row for people."""
    return [neutralise(cell) for cell in cells]
