"""What one cell of an import file may hold, and the form in which it is sent.

Each reader takes a cell as it stands in the file and returns it in the form that the API documents, or raises
`CellError`. Texts are never altered: only e-mail addresses, numbers, dates and enumerations have one
canonical form. Where the documentation names an error text, ours is the same, with advice after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

MAX_EMAIL_CHARACTERS = 254
"""RFC 5321, 4.5.3.1.3: the longest address that fits a path."""
MAX_DOMAIN_CHARACTERS = 253
MAX_LINE_CHARACTERS = 1_000
"""The API documents no lengths. These bounds only stop cells that are certainly an accident; Rally may be
stricter."""
MAX_TEXT_CHARACTERS = 100_000
_MAX_INSTANT_CHARACTERS = 40
_MAX_DIGITS = 28
"""Of a .NET `decimal`, the type that the API names."""
_SHOWN_CHARACTERS = 80
_NOT_IN_ADDRESSES = frozenset(' ,;<>()[]"')
"""Beside what is not printable, which is all other blanks and everything invisible."""


class Fault(StrEnum):
    """Why a row is not imported. Those that Rally documents come first."""

    EMAIL = "email"
    DUPLICATE = "duplicate"
    REQUIRED = "required"
    ENUMERATION = "enumeration"
    LINK = "link"
    DATE = "date"
    NUMBER = "number"
    LENGTH = "length"
    CHARACTERS = "characters"
    CELLS = "cells"
    AMBIGUOUS = "ambiguous"
    SIZE = "size"
    UNDECIDED = "undecided"
    OTHER = "other"


class CellError(ValueError):
    """A cell that Rally would refuse. The message quotes at most the beginning of the cell."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message


Reader = Callable[[str], str]


def shown(text: str) -> str:
    """A cell's text for a message: on one line, shortened."""
    line = text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"


@dataclass(frozen=True, slots=True)
class TextReader:
    """Any text up to `longest` characters; exactly as it stands."""

    longest: int = MAX_LINE_CHARACTERS

    def __call__(self, text: str) -> str:
        if len(text) > self.longest:
            raise CellError(
                Fault.LENGTH, f"{len(text):,} characters are too many: at most {self.longest:,} are sent"
            )
        return text


@dataclass(frozen=True, slots=True)
class EnumerationReader:
    """One of `values`, in any case; sent in the documented spelling."""

    column: str
    values: tuple[str, ...]

    def __call__(self, text: str) -> str:
        value = text.strip().casefold()
        if value in self.values:
            return value
        raise CellError(
            Fault.ENUMERATION, f"Invalid {self.column} value '{shown(text)}'; one of {', '.join(self.values)}"
        )


@dataclass(frozen=True, slots=True)
class IntegerReader:
    """A whole number within bounds, without separators."""

    least: int = 0
    greatest: int = 2**31 - 1

    def __call__(self, text: str) -> str:
        digits = text.strip()
        unsigned = digits.removeprefix("-")
        if not (unsigned.isascii() and unsigned.isdigit() and len(unsigned) <= 18):
            raise CellError(Fault.NUMBER, f"'{shown(text)}' is not a whole number; write it as 1200")
        if not self.least <= int(digits) <= self.greatest:
            raise CellError(
                Fault.NUMBER, f"{shown(digits)} is out of range: from {self.least} to {self.greatest}"
            )
        return digits


def read_decimal(text: str) -> str:
    """An amount with a point as the decimal mark and no separators; all digits are kept."""
    number = text.strip()
    whole, point, fraction = number.removeprefix("-").partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit() and whole and (fraction or not point)):
        raise CellError(
            Fault.NUMBER,
            f"'{shown(text)}' is not a number; write 12400000.50, without separators or currency",
        )
    if len(digits.lstrip("0")) > _MAX_DIGITS:
        raise CellError(Fault.NUMBER, f"more than {_MAX_DIGITS} digits")
    return number


def read_email(text: str) -> str:
    """One e-mail address. Linear in the text, whose length is bounded first."""
    address = text.strip()
    if len(address) > MAX_EMAIL_CHARACTERS:
        raise CellError(
            Fault.LENGTH,
            f"{len(address):,} characters are too many for an e-mail address: at most {MAX_EMAIL_CHARACTERS}",
        )
    local, at, domain = address.rpartition("@")
    labels = domain.split(".")
    sound = (
        at
        and local
        and "@" not in local
        and address.isprintable()
        and _NOT_IN_ADDRESSES.isdisjoint(address)
        and len(labels) > 1
        and all(labels)
        and not local.startswith(".")
        and not local.endswith(".")
        and ".." not in local
    )
    if not sound:
        raise CellError(
            Fault.EMAIL, f"Invalid email format '{shown(text)}'; one address such as ines@example.org"
        )
    return address


def read_domain(text: str) -> str:
    """A host name such as harbourtools.example, not a URL."""
    domain = text.strip()
    if len(domain) > MAX_DOMAIN_CHARACTERS:
        raise CellError(Fault.LENGTH, f"{len(domain):,} characters are too many for a domain")
    if "/" in domain or "@" in domain or any(letter.isspace() for letter in domain):
        raise CellError(
            Fault.CHARACTERS, f"'{shown(text)}' is not a domain; write harbourtools.example, without https://"
        )
    return domain


def read_currency(text: str) -> str:
    """Three letters of ISO 4217."""
    code = text.strip()
    if not (len(code) == 3 and code.isascii() and code.isalpha()):
        raise CellError(
            Fault.CHARACTERS, f"'{shown(text)}' is not a currency; write three letters such as EUR"
        )
    return code


@dataclass(frozen=True, slots=True)
class DateReader:
    """An ISO 8601 date, or an instant with its offset, which is sent in UTC.

    An instant without an offset is refused: it would mean a different moment to everyone who reads it.
    """

    column: str

    def __call__(self, text: str) -> str:
        value = text.strip()
        moment = _read_moment(value)
        if moment is None:
            raise self._error(f"'{shown(text)}'; write 2025-03-04 or 2025-03-04T09:08:07Z")
        if not isinstance(moment, datetime):
            return moment.isoformat()
        if moment.tzinfo is None:
            raise self._error(
                f"'{value}' does not name its time zone; write {moment:%Y-%m-%dT%H:%M:%S}Z for UTC"
            )
        try:
            utc = moment.astimezone(UTC)
        except OverflowError:
            raise self._error(f"'{value}' is outside the years 1 to 9999") from None
        fraction = f".{utc.microsecond:06d}".rstrip("0") if utc.microsecond else ""
        return f"{utc:%Y-%m-%dT%H:%M:%S}{fraction}Z"

    def _error(self, problem: str) -> CellError:
        return CellError(Fault.DATE, f"Invalid date format in '{self.column}': {problem}")


def _read_moment(value: str) -> date | datetime | None:
    """A day or an instant in extended ISO 8601; None for everything else."""
    if len(value) > _MAX_INSTANT_CHARACTERS or not value.isascii() or value[4:5] != "-" or value[7:8] != "-":
        return None
    try:
        return date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        return None
