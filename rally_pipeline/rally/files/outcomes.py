"""What became of rows, in the warehouse: their problems, and their cells until the rejects file is
written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.cells import Fault
from rally_pipeline.rally.files.manifest import OPEN_STATES
from rally_pipeline.rally.files.problems import Problem
from rally_pipeline.rally.files.tables import import_chunks, import_rejects, import_row_errors
from rally_pipeline.rally.files.validation import Outcome

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table

    from rally_pipeline.warehouse import Transaction, Warehouse


class RowOutcomes:
    """The rows of one file's import that were not imported."""

    def __init__(self, warehouse: Warehouse, entity: Entity, sha256: str) -> None:
        self._warehouse = warehouse
        self._entity = entity
        self._sha256 = sha256

    def read_rejects(self, *, batch: int = 500) -> Iterator[tuple[int, Outcome, list[str], list[str]]]:
        """Rows that were not imported, in order of the file: number, outcome, problems, cells."""
        after = -1
        while True:
            rejects = (
                select(import_rejects.c.row_number, import_rejects.c.cells)
                .where(self._of(import_rejects), import_rejects.c.row_number > after)
                .order_by(import_rejects.c.row_number)
                .limit(batch)
            )
            with self._warehouse.reading() as tx:
                rows = tx.rows(rejects)
                if not rows:
                    return
                found = self._errors_between(tx, rows[0][0], rows[-1][0])
            for number, cells in rows:
                errors = found.get(number, [])
                outcome = Outcome(errors[0][0]) if errors else Outcome.UNKNOWN
                yield number, outcome, [message for _, message in errors], list(cells)
            after = rows[-1][0]

    def read_problems(self, limit: int) -> list[Problem]:
        """The first problems, in order of the file."""
        columns = import_row_errors.c
        query = (
            select(
                columns.fault, columns.message, columns.row_number, columns.line_number, columns.column_name
            )
            .where(self._of(import_row_errors))
            .order_by(columns.row_number, columns.no)
            .limit(limit)
        )
        with self._warehouse.reading() as tx:
            return [Problem(Fault(row[0]), *row[1:]) for row in tx.rows(query)]

    def insert_rejects(self, tx: Transaction, rows: Sequence[tuple[int, Sequence[str]]]) -> None:
        """Keep the cells of rows that were not imported."""
        if rows:
            values = [{**self._key, "row_number": number, "cells": list(cells)} for number, cells in rows]
            tx.execute(insert(import_rejects), values)

    def insert_errors(
        self,
        tx: Transaction,
        rows: Iterable[tuple[int, int, Outcome, Sequence[Problem], str, int | None]],
    ) -> None:
        """Keep the problems of rows: number, line, outcome, problems, origin, upload."""
        values = [
            {
                **self._key,
                "row_number": number,
                "no": place,
                "line_number": line,
                "column_name": problem.column,
                "outcome": outcome.value,
                "fault": problem.fault.value,
                "message": problem.message,
                "origin": origin,
                "chunk": chunk,
            }
            for number, line, outcome, problems, origin, chunk in rows
            for place, problem in enumerate(problems, start=1)
        ]
        if values:
            tx.execute(insert(import_row_errors), values)

    def count(self, tx: Transaction) -> Counter[Outcome]:
        """Rows by outcome.

        Raises:
            InvariantViolation: IM3, an upload is not decided yet.
        """
        open_chunks = tx.scalar(
            select(func.count()).where(self._of(import_chunks), import_chunks.c.state.in_(OPEN_STATES))
        )
        if open_chunks:
            raise InvariantViolation("IM3", f"{open_chunks} uploads are not decided yet")
        query = (
            select(import_row_errors.c.outcome, func.count(import_row_errors.c.row_number.distinct()))
            .where(self._of(import_row_errors))
            .group_by(import_row_errors.c.outcome)
        )
        counts = Counter({Outcome(outcome): int(count) for outcome, count in tx.rows(query)})
        letters = select(import_chunks.c.outcomes).where(self._of(import_chunks))
        counts[Outcome.IMPORTED] = sum(bytes(row[0] or b"").count(b"i") for row in tx.rows(letters))
        return counts

    def _errors_between(self, tx: Transaction, first: int, last: int) -> dict[int, list[tuple[str, str]]]:
        columns = import_row_errors.c
        query = (
            select(columns.row_number, columns.outcome, columns.column_name, columns.message)
            .where(self._of(import_row_errors), columns.row_number.between(first, last))
            .order_by(columns.row_number, columns.no)
        )
        found: dict[int, list[tuple[str, str]]] = {}
        for number, outcome, column, message in tx.rows(query):
            found.setdefault(number, []).append((outcome, f"{column}: {message}" if column else message))
        return found

    @property
    def _key(self) -> dict[str, str]:
        return {"entity": self._entity.value, "sha256": self._sha256}

    def _of(self, table: Table) -> ColumnElement[bool]:
        return (table.c.entity == self._entity.value) & (table.c.sha256 == self._sha256)
