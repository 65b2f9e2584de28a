"""The header row of a file against the template of the server."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.cells import Fault, shown
from rally_pipeline.rally.files.problems import FileError, Problem
from rally_pipeline.rally.files.templates import TEMPLATES, Template

ROW_COLUMN = "_row"
OUTCOME_COLUMN = "_outcome"
PROBLEMS_COLUMN = "_problems"
"""Columns of a rejects file beside the template's own. Every header with a leading underscore is a note for
people and is not sent."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the template's columns stand in a file."""

    template: Template
    positions: tuple[int | None, ...]
    """For each column of the template its place in the file, or None where the file lacks it."""
    width: int
    """Cells that a row has."""
    outcome: int | None
    """Place of the rejects file's `_outcome` column."""


def arrange(headers: Sequence[str], template: Template) -> Layout:
    """Find the template's columns in a header row, in any order, in any case, with blanks or hyphens for
    underscores.

    Raises:
        FileError: an unknown or repeated header, a required column that is missing, or the headers of another
            entity; with advice.
    """
    names = [_normalise(header) for header in headers]
    while names and not names[-1]:
        names.pop()
    other = _other_entity(names, template)
    if other is not None:
        raise FileError(
            f"the columns are those of {other.value}, not of {template.entity.value}:"
            f" import the file as {other.value}"
        )
    places: dict[str, int] = {}
    problems: list[Problem] = []
    known = set(template.headers)
    for place, name in enumerate(names):
        if name.startswith("_"):
            if name == OUTCOME_COLUMN:
                places.setdefault(name, place)
            continue
        if name in places:
            problems.append(_header_problem(place, headers[place], f"column '{name}' stands twice"))
        elif name not in known:
            problems.append(
                _header_problem(place, headers[place], _unknown_header(name, headers[place], template))
            )
        places.setdefault(name, place)
    problems.extend(
        Problem(Fault.CELLS, f"required column '{column.name}' is missing", 1, None, column.name)
        for column in template.columns
        if column.required and column.name not in places
    )
    if problems:
        raise FileError(problems)
    positions = tuple(places.get(name) for name in template.headers)
    return Layout(template, positions, len(names), places.get(OUTCOME_COLUMN))


def read_template(text: str, entity: Entity) -> Template:
    """The template as the server gives it: a CSV text whose first row holds the headers.

    Raises:
        FileError: it has no usable header row.
    """
    rows = csv.reader(text.removeprefix("\ufeff").splitlines(keepends=True), strict=True)
    try:
        headers = [_normalise(header) for header in next(rows, [])]
    except csv.Error as error:
        raise FileError(f"the template that Rally gives for {entity.value} is no CSV: {error}") from None
    expected = TEMPLATES[entity]
    if not set(headers) & set(expected.headers) or len(set(headers)) != len(headers) or not all(headers):
        raise FileError(f"the template that Rally gives for {entity.value} has no usable header row")
    return expected.following(headers)


def _normalise(header: str) -> str:
    return "_".join(header.strip().removeprefix("\ufeff").casefold().replace("-", " ").split())


def _header_problem(place: int, header: str, message: str) -> Problem:
    return Problem(Fault.CELLS, message, 1, None, shown(header) or f"number {place + 1}")


def _unknown_header(name: str, header: str, template: Template) -> str:
    if not name:
        return (
            "a column without a name stands between others: name it, or begin the name with _ to leave it out"
        )
    by_field = {column.field: column.name for column in template.columns if column.field}
    meant = by_field.get(header.strip())
    if meant is None:
        meant = next(iter(difflib.get_close_matches(name[:60], template.headers, 1, 0.75)), None)
    advice = f"is '{meant}' meant?" if meant else "remove it, or begin its name with _ to leave it out"
    return f"'{shown(header)}' is not a column of the {template.entity.value} template: {advice}"


def _other_entity(names: Sequence[str], template: Template) -> Entity | None:
    """The entity whose template fits the headers clearly better."""
    given = {name for name in names if name and not name.startswith("_")}

    def misfits(candidate: Template) -> int:
        required = {column.name for column in candidate.columns if column.required}
        return len(given - set(candidate.headers)) + len(required - given)

    if not given or misfits(template) == 0:
        return None
    best = min(
        (candidate for candidate in TEMPLATES.values() if candidate.entity is not template.entity),
        key=misfits,
    )
    return best.entity if misfits(best) == 0 else None
