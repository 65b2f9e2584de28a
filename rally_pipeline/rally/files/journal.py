"""The imports' memory in the warehouse: what was fixed before it was sent, what was sent, and what became of
it.

Every change is one transaction under the lease, so that a process that dies at any point leaves a state from
which the next one goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.manifest import (
    LETTERS,
    OPEN_STATES,
    ChunkState,
    Decision,
    FileRecord,
    FileStatus,
    PlannedChunk,
    StoredChunk,
    cut_keys,
    pack_rows,
    unpack_rows,
)
from rally_pipeline.rally.files.outcomes import RowOutcomes
from rally_pipeline.rally.files.problems import Problem
from rally_pipeline.rally.files.sources import Dialect
from rally_pipeline.rally.files.tables import import_chunks, import_files, import_rejects, import_row_errors
from rally_pipeline.rally.files.validation import CheckedRow, Outcome

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table

    from rally_pipeline.rally.files.answers import ImportResult
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse


class ImportJournal:
    """The memory of one file's import."""

    def __init__(self, warehouse: Warehouse, entity: Entity, file_sha256: str) -> None:
        self._warehouse = warehouse
        self._entity = entity
        self._sha256 = file_sha256
        self._stream = f"rally.import.{entity.value}"
        self.outcomes = RowOutcomes(warehouse, entity, file_sha256)

    # The file

    def read(self) -> FileRecord | None:
        """The file's row, if it was ever met."""
        columns = [import_files.c[name] for name in FileRecord.__slots__]
        with self._warehouse.reading() as tx:
            rows = tx.rows(select(*columns).where(self._of(import_files)))
        if not rows:
            return None
        values = dict(zip(FileRecord.__slots__, rows[0], strict=True))
        return FileRecord(**{**values, "status": FileStatus(values["status"])})

    def begin(self, lease: Lease, file_name: str, size: int, at: datetime) -> None:
        """Start over: nothing of this file was sent so far."""
        with self._transaction("begin", lease) as tx:
            self._forget(tx)
            fresh = dict.fromkeys(
                ("rows", "imported", "duplicate", "refused", "unknown", "chunks", "uploads"), 0
            )
            values = {"file_name": file_name, "bytes": size, "status": FileStatus.STAGING, "started_at": at}
            tx.execute(insert(import_files).values(**self._key, **fresh, **values))

    def refuse(
        self, lease: Lease, file_name: str, size: int, problems: Sequence[Problem], at: datetime
    ) -> None:
        """The file as a whole cannot be imported."""
        self.begin(lease, file_name, size, at)
        message = "; ".join(str(problem) for problem in problems)[:2_000]
        values = {"status": FileStatus.REFUSED, "message": message, "finished_at": at}
        with self._transaction("refuse", lease) as tx:
            tx.execute(update(import_files).where(self._of(import_files)).values(**values))

    def stage(
        self, lease: Lease, number: int, planned: PlannedChunk | None, rejected: Sequence[CheckedRow]
    ) -> None:
        """Store an upload and the rows that were refused before it."""
        with self._transaction("stage", lease) as tx:
            if planned is not None:
                self._insert_chunk(tx, number, planned, replaces=None, round_=0)
            self.outcomes.insert_rejects(tx, [(row.row.number, row.cells) for row in rejected])
            self.outcomes.insert_errors(
                tx,
                ((row.row.number, row.row.line, row.outcome, row.problems, "file", None) for row in rejected),
            )

    def fix(self, lease: Lease, rows: int, chunks: int, dialect: Dialect, headers: Sequence[str]) -> None:
        """Everything is stored: from here on it does not change, and may be sent (IM1)."""
        values = {
            "status": FileStatus.OPEN,
            "rows": rows,
            "chunks": chunks,
            "format": dialect.format,
            "encoding": dialect.encoding,
            "delimiter": dialect.delimiter,
            "headers": list(headers),
        }
        with self._transaction("fix", lease) as tx:
            tx.execute(update(import_files).where(self._of(import_files)).values(**values))

    def finish(self, lease: Lease, rejects_file: str | None, at: datetime) -> FileRecord:
        """Close the import and drop what is not needed any more.

        Raises:
            InvariantViolation: IM3, a row has no outcome, or more than one.
        """
        with self._transaction("finish", lease) as tx:
            counts = self.outcomes.count(tx)
            rows = tx.scalar(select(import_files.c.rows).where(self._of(import_files)))
            if sum(counts.values()) != rows:
                raise InvariantViolation(
                    "IM3", f"{rows} rows, but outcomes of {sum(counts.values())}: {dict(counts)}"
                )
            tx.execute(
                update(import_files)
                .where(self._of(import_files))
                .values(
                    **{outcome.value: counts[outcome] for outcome in LETTERS},
                    status=FileStatus.DONE,
                    rejects_file=rejects_file,
                    finished_at=at,
                )
            )
            tx.execute(update(import_chunks).where(self._of(import_chunks)).values(body=None))
            if rejects_file is not None:
                tx.execute(delete(import_rejects).where(self._of(import_rejects)))
        record = self.read()
        if record is None:
            raise InvariantViolation("IM3", "the import has no row in import_files")
        return record

    # The uploads

    def next_chunk(self) -> StoredChunk | None:
        """The first upload that is still to be decided."""
        names = ("chunk", "round", "state", "body", "row_numbers", "row_keys", "sent_at", "body_sha256")
        query = (
            select(*(import_chunks.c[name] for name in names))
            .where(self._of(import_chunks), import_chunks.c.state.in_(OPEN_STATES))
            .order_by(import_chunks.c.chunk)
            .limit(1)
        )
        with self._warehouse.reading() as tx:
            rows = tx.rows(query)
        if not rows:
            return None
        number, round_, state, body, numbers, keys, sent_at, digest = rows[0]
        if sha256(body).hexdigest() != digest:
            raise InvariantViolation("IM1", f"upload {number} is not what was stored: its bytes were altered")
        return StoredChunk(
            number, round_, ChunkState(state), bytes(body), unpack_rows(numbers), cut_keys(keys), sent_at
        )

    def keep_lease(self, lease: Lease) -> None:
        """Renew the lease in the middle of a long wait.

        Raises:
            FenceLost: another process took the imports over; nothing may be sent any more.
        """
        with self._transaction("wait", lease):
            pass

    def mark_sending(self, lease: Lease, chunk: StoredChunk, at: datetime) -> None:
        """The last thing before the POST.

        Raises:
            InvariantViolation: IM1 or IM2; it must not be sent.
        """
        with self._transaction("send", lease) as tx:
            self._check_sendable(tx, chunk)
            tx.witness()
            self._set_chunk(tx, chunk.number, state=ChunkState.SENDING, sent_at=at)
            uploads = import_files.c.uploads + 1
            tx.execute(update(import_files).where(self._of(import_files)).values(uploads=uploads))

    def _check_sendable(self, tx: Transaction, chunk: StoredChunk) -> None:
        of_chunk = self._of(import_chunks) & (import_chunks.c.chunk == chunk.number)
        stored = tx.rows(select(import_chunks.c.state, import_chunks.c.body_sha256).where(of_chunk))
        status = tx.scalar(select(import_files.c.status).where(self._of(import_files)))
        digest = sha256(chunk.body).hexdigest()
        if status != FileStatus.OPEN or not stored or stored[0][1] != digest:
            raise InvariantViolation(
                "IM1", f"upload {chunk.number} would be sent of a file that is {status}, or with other bytes"
            )
        if stored[0][0] != ChunkState.PLANNED:
            raise InvariantViolation(
                "IM2", f"upload {chunk.number} would be sent although it is {stored[0][0]}"
            )

    def take_back(self, lease: Lease, chunk: StoredChunk) -> None:
        """The POST certainly did nothing: it may be sent as it is."""
        with self._transaction("take-back", lease) as tx:
            self._set_chunk(tx, chunk.number, state=ChunkState.PLANNED, sent_at=None)

    def mark_unknown(
        self, lease: Lease, chunk: StoredChunk, message: str, result: ImportResult | None
    ) -> None:
        """There is no telling from the answer what was applied."""
        with self._transaction("unknown", lease) as tx:
            self._set_chunk(
                tx, chunk.number, state=ChunkState.UNKNOWN, message=message[:500], **_counts(result)
            )

    def decide(self, lease: Lease, chunk: StoredChunk, decision: Decision, at: datetime) -> None:
        """Outcomes, errors and the upload of what is missing, in one transaction."""
        outcomes = b"".join(LETTERS[outcome] for outcome in decision.outcomes if outcome in LETTERS)
        resent = len(decision.outcomes) - len(outcomes)
        if len(decision.outcomes) != len(chunk.rows) or resent != (
            len(decision.resend.lines) if decision.resend else 0
        ):
            raise InvariantViolation(
                "IM3", f"upload {chunk.number}: {len(chunk.rows)} rows, {len(outcomes)} + {resent} outcomes"
            )
        letters = b"".join(LETTERS.get(outcome, b"-") for outcome in decision.outcomes)
        with self._transaction("decide", lease) as tx:
            self._set_chunk(
                tx,
                chunk.number,
                state=decision.state,
                outcomes=letters,
                settled_at=at,
                **({} if decision.message is None else {"message": decision.message}),
                **_counts(decision.result),
            )
            self._reject(tx, chunk, decision)
            if decision.resend is not None:
                self._append(tx, chunk, [decision.resend], chunk.round + 1)
            if decision.numbering is not None:
                tx.execute(
                    update(import_files).where(self._of(import_files)).values(numbering=decision.numbering)
                )

    def split(
        self, lease: Lease, chunk: StoredChunk, parts: Sequence[PlannedChunk], limit: int | None
    ) -> None:
        """Replace an upload that is too large by its parts; it was refused, so none of it was applied."""
        with self._transaction("split", lease) as tx:
            self._set_chunk(tx, chunk.number, state=ChunkState.SPLIT, outcomes=b"-" * len(chunk.rows))
            self._append(tx, chunk, parts, chunk.round)
            if limit is not None:
                tx.execute(update(import_files).where(self._of(import_files)).values(upload_limit=limit))

    def earlier_imports(self, chunk: StoredChunk, since: datetime) -> tuple[Counter[bytes], datetime | None]:
        """Rows equal to rows of this upload that other uploads have imported since a moment (any file, same
        entity), counted by key; and when the first of those uploads was sent."""
        wanted = set(chunk.keys)
        counted: Counter[bytes] = Counter()
        first: datetime | None = None
        query = select(
            import_chunks.c.sha256,
            import_chunks.c.chunk,
            import_chunks.c.row_keys,
            import_chunks.c.outcomes,
            import_chunks.c.sent_at,
        ).where(
            import_chunks.c.entity == self._entity.value,
            import_chunks.c.outcomes.is_not(None),
            import_chunks.c.sent_at.is_not(None),
            import_chunks.c.settled_at >= since,
        )
        with self._warehouse.reading() as tx:
            for file_sha256, number, keys, outcomes, sent_at in map(tuple, tx.execute(query)):
                if (file_sha256, number) == (self._sha256, chunk.number):
                    continue
                pairs = zip(cut_keys(keys), bytes(outcomes), strict=True)
                equal = Counter(key for key, letter in pairs if letter == ord("i") and key in wanted)
                if equal:
                    counted += equal
                    first = sent_at if first is None else min(first, sent_at)
        return counted, first

    def read_headers(self) -> list[str]:
        """The template's columns that rows and rejects are in."""
        with self._warehouse.reading() as tx:
            return list(tx.scalar(select(import_files.c.headers).where(self._of(import_files))) or ())

    # Inside transactions

    @property
    def _key(self) -> dict[str, str]:
        return {"entity": self._entity.value, "sha256": self._sha256}

    def _of(self, table: Table) -> ColumnElement[bool]:
        return (table.c.entity == self._entity.value) & (table.c.sha256 == self._sha256)

    def _transaction(self, name: str, lease: Lease) -> AbstractContextManager[Transaction]:
        return self._warehouse.transaction(f"{self._stream}.{name}", lease)

    def _forget(self, tx: Transaction) -> None:
        for table in (import_files, import_chunks, import_row_errors, import_rejects):
            tx.execute(delete(table).where(self._of(table)))

    def _set_chunk(self, tx: Transaction, number: int, **values: Any) -> None:
        condition = self._of(import_chunks) & (import_chunks.c.chunk == number)
        tx.execute(update(import_chunks).where(condition).values(**values))

    def _insert_chunk(
        self, tx: Transaction, number: int, planned: PlannedChunk, *, replaces: int | None, round_: int
    ) -> None:
        chunk = planned.chunk
        tx.execute(
            insert(import_chunks).values(
                **self._key,
                chunk=number,
                replaces=replaces,
                round=round_,
                state=ChunkState.PLANNED,
                rows=len(chunk.rows),
                bytes=len(chunk.body),
                body_sha256=chunk.sha256,
                body=chunk.body,
                row_numbers=pack_rows(chunk.rows, planned.lines),
                row_keys=b"".join(planned.keys),
            )
        )

    def _append(
        self, tx: Transaction, chunk: StoredChunk, parts: Sequence[PlannedChunk], round_: int
    ) -> None:
        last = tx.scalar(select(func.max(import_chunks.c.chunk)).where(self._of(import_chunks)))
        for number, part in enumerate(parts, start=last + 1):
            self._insert_chunk(tx, number, part, replaces=chunk.number, round_=round_)

    def _reject(self, tx: Transaction, chunk: StoredChunk, decision: Decision) -> None:
        refused = (Outcome.DUPLICATE, Outcome.REFUSED, Outcome.UNKNOWN)
        positions = [place for place, outcome in enumerate(decision.outcomes) if outcome in refused]
        if not positions:
            return
        _, cells = chunk.read()
        self.outcomes.insert_rejects(tx, [(chunk.rows[place][0], cells[place]) for place in positions])
        self.outcomes.insert_errors(
            tx,
            (
                (
                    *chunk.rows[place],
                    decision.outcomes[place],
                    decision.problems[place],
                    "rally",
                    chunk.number,
                )
                for place in positions
            ),
        )


def _counts(result: ImportResult | None) -> dict[str, int]:
    if result is None:
        return {}
    return {
        "total_rows": result.total_rows,
        "imported": result.imported,
        "skipped": result.skipped,
        "texts": len(result.errors),
    }
