"""Imports: a file in, every row accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.answers import Numbering
from rally_pipeline.rally.files.endpoints import FileEndpoints
from rally_pipeline.rally.files.folders import hash_file
from rally_pipeline.rally.files.headers import arrange
from rally_pipeline.rally.files.journal import ImportJournal
from rally_pipeline.rally.files.known import learn_known_records, needed_entities
from rally_pipeline.rally.files.manifest import FileRecord, FileStatus
from rally_pipeline.rally.files.policy import ImportPolicy
from rally_pipeline.rally.files.problems import FileError, Problem
from rally_pipeline.rally.files.rejects import rejects_path, write_rejects
from rally_pipeline.rally.files.restored import IMPORTED_SINCE
from rally_pipeline.rally.files.restored import MESSAGE as ASSUMED
from rally_pipeline.rally.files.scratch import Scratch
from rally_pipeline.rally.files.sources import open_source
from rally_pipeline.rally.files.staging import Staging
from rally_pipeline.rally.files.tables import metadata
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.rally.files.uploads import Uploader
from rally_pipeline.rally.files.validation import Outcome, RowValidator
from rally_pipeline.rally.results import Cost, Counted
from rally_pipeline.rally.spending import Meter

if TYPE_CHECKING:
    from rally_pipeline.rally.client import RallyClient
    from rally_pipeline.rally.files.sources import Source
    from rally_pipeline.rally.files.templates import Template
    from rally_pipeline.warehouse import Lease, Warehouse

Progress = Callable[[str, int, int | None], None]
SHOWN_PROBLEMS = 50
LEASE_STREAM = "rally.import"
LEASE_SECONDS = 1_200
"""Longer than an upload may take: the lease is renewed between uploads only."""


def no_progress(stream: str, done: int, total: int | None) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class ImportReport(Counted):
    """What became of a file. When nothing is left open, `imported + duplicate + refused + unknown = rows`."""

    entity: str
    file_name: str
    sha256: str
    status: str
    """`done`, `checked` (dry run: nothing was sent), or `already imported` (this run did nothing)."""
    rows: int
    imported: int
    duplicate: int
    refused: int
    unknown: int
    accepted: int
    """Dry run: rows that would be sent."""
    chunks: int
    uploads: int
    problems: tuple[Problem, ...]
    """The first ones, in order of the file; all are in `import_row_errors`."""
    notes: tuple[str, ...]
    """What a person should know besides."""
    rejects: Path | None
    cost: Cost

    @property
    def succeeded(self) -> bool:
        """Whether no row needs a person."""
        return self.refused == 0 and self.unknown == 0

    def counts(self) -> dict[str, int | float]:
        return {**Counted.counts(self), **self.cost.counts()}


@dataclass(frozen=True, slots=True)
class _Opened:
    """One call of `run`."""

    journal: ImportJournal
    entity: Entity
    path: Path
    sha256: str
    size: int
    meter: Meter
    notes: list[str] = field(default_factory=list)


class Importer:
    """Imports files of one tenant, one at a time, and goes on with what a killed process left.

    Contract: the same bytes are imported once. A call that is killed at any point is finished by the next
    call with the same file. After an unclear answer nothing is sent before Rally's lists were read.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        client: RallyClient,
        policy: ImportPolicy | None = None,
        *,
        clock: Clock | None = None,
        progress: Progress = no_progress,
        patience_seconds: float = 0.0,
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._endpoints = FileEndpoints(client.http)
        self._policy = policy or ImportPolicy()
        self._clock = clock or SystemClock()
        self._progress = progress
        self._patience_seconds = patience_seconds

    def prepare(self) -> None:
        """Create or extend the tables."""
        self._warehouse.create_tables(metadata)

    def check(self, entity: Entity, path: Path) -> ImportReport:
        """Every check that is made before sending; nothing is sent or stored.

        Raises:
            FileError: the file as a whole cannot be imported.
            ApiError: the template could not be read.
        """
        sha256, _ = hash_file(path)
        meter = Meter(self._client, self._clock)
        counts = dict.fromkeys(Outcome, 0)
        chunks = 0
        problems: list[Problem] = []
        with self._reading(entity, path) as (_, staging, source, notes):
            for part in staging.parts(source):
                if part.planned is not None:
                    chunks += 1
                    counts[Outcome.STAGED] += len(part.planned.lines)
                for row in part.rejected:
                    counts[row.outcome] += 1
                    problems.extend(row.problems[: SHOWN_PROBLEMS - len(problems)])
                self._progress(f"check {path.name}", sum(counts.values()), None)
        return ImportReport(
            entity=entity.value,
            file_name=path.name,
            sha256=sha256,
            status="checked",
            rows=sum(counts.values()),
            imported=0,
            duplicate=counts[Outcome.DUPLICATE],
            refused=counts[Outcome.REFUSED],
            unknown=0,
            accepted=counts[Outcome.STAGED],
            chunks=chunks,
            uploads=0,
            problems=tuple(problems),
            notes=tuple(notes),
            rejects=None,
            cost=meter.cost(),
        )

    def run(self, entity: Entity, path: Path, *, again: bool = False) -> ImportReport:
        """Import a file, or go on with its import; does nothing if it was imported before, unless `again`.

        Raises:
            ReadOnly: RALLY_PIPELINE_READ_ONLY is on.
            FileError: the file as a whole cannot be imported, or counts as imported; nothing was sent.
            WarehouseError: the warehouse was restored or copied, and nobody has said so yet.
            LeaseHeld: another import is under way.
            ApiError: Rally cannot be used now; run again to go on.
        """
        self._check_writable()
        sha256, size = hash_file(path)
        journal = ImportJournal(self._warehouse, entity, sha256)
        opened = _Opened(journal, entity, path, sha256, size, Meter(self._client, self._clock))
        with self._warehouse.lease(
            LEASE_STREAM, wait_seconds=self._patience_seconds, ttl_seconds=LEASE_SECONDS
        ) as lease:
            record = journal.read()
            if record is not None and record.status is FileStatus.ASSUMED and not again:
                raise FileError(f"{path.name} {ASSUMED}: --again imports it nonetheless")
            if record is not None and record.status is FileStatus.DONE and record.uploads and not again:
                return self._reported_again(opened, lease, record)
            if record is None or record.status is not FileStatus.OPEN:
                self._stage(opened, lease)
            self._upload(opened, lease)
            return self._close(opened, lease)

    def resume(self, entity: Entity, sha256: str, folder: Path) -> ImportReport | None:
        """Go on with an import whose file is gone: everything that is sent is stored. None if there is none.

        The rejects file goes into `folder`.

        Raises:
            ReadOnly: RALLY_PIPELINE_READ_ONLY is on.
            LeaseHeld: another import is under way.
            ApiError: Rally cannot be used now; run again to go on.
        """
        self._check_writable()
        journal = ImportJournal(self._warehouse, entity, sha256)
        with self._warehouse.lease(
            LEASE_STREAM, wait_seconds=self._patience_seconds, ttl_seconds=LEASE_SECONDS
        ) as lease:
            record = journal.read()
            if record is None or record.status not in (FileStatus.OPEN, FileStatus.DONE):
                return None
            path = folder / record.file_name
            opened = _Opened(journal, entity, path, sha256, 0, Meter(self._client, self._clock))
            opened.notes.append(f"the file {record.file_name} is not there any more")
            if record.status is FileStatus.DONE:
                return self._reported_again(opened, lease, record)
            self._upload(opened, lease)
            return self._close(opened, lease)

    def _check_writable(self) -> None:
        """Before anything is stored: an import may be sent, and this warehouse knows what was imported before."""
        self._client.http.check_writable("nothing is imported")
        self._warehouse.check_not_moved(IMPORTED_SINCE)

    @contextmanager
    def _reading(self, entity: Entity, path: Path) -> Iterator[tuple[Template, Staging, Source, list[str]]]:
        """Everything that is needed to read a file through its checks."""
        policy = self._policy
        _, template = self._endpoints.get_template(entity)
        expected = {header for known in TEMPLATES.values() for header in known.headers} | set(
            template.headers
        )
        notes: list[str] = []
        with Scratch() as scratch, open_source(path, expected, encoding=policy.encoding) as source:
            layout = arrange(source.headers, template)
            needed = needed_entities(layout, links=policy.check_links)
            uncovered = learn_known_records(scratch, self._warehouse, self._client, needed, policy.overlap)
            if uncovered:
                names = ", ".join(entity.value for entity in uncovered)
                notes.append(f"not checked before sending, because they were never fully extracted: {names}")
            validator = RowValidator(
                layout,
                scratch,
                from_spreadsheet=policy.guard_formulas,
                formula_errors=source.dialect.format == "xlsx",
                pipelines=self._endpoints.read_pipelines,
            )
            yield template, Staging(template, validator, policy.limits), source, notes

    def _stage(self, opened: _Opened, lease: Lease) -> None:
        """Read the file to its end and store every upload, before the first one is sent (IM1)."""
        journal, path = opened.journal, opened.path
        now = self._clock.now()
        rows = chunks = 0
        try:
            with self._reading(opened.entity, path) as (template, staging, source, found):
                journal.begin(lease, path.name, opened.size, now)
                for part in staging.parts(source):
                    chunks += part.planned is not None
                    rows += len(part.rejected) + (len(part.planned.lines) if part.planned else 0)
                    journal.stage(lease, chunks, part.planned, part.rejected)
                    self._progress(f"check {path.name}", rows, None)
                if hash_file(path)[0] != opened.sha256:
                    raise FileError(f"{path.name} was changed while it was read: import it again")
                journal.fix(lease, rows, chunks, source.dialect, template.headers)
                opened.notes.extend(found)
        except FileError as error:
            journal.refuse(lease, path.name, opened.size, error.problems, now)
            raise

    def _upload(self, opened: _Opened, lease: Lease) -> None:
        journal, name = opened.journal, opened.path.name
        uploader = Uploader(
            self._warehouse, journal, opened.entity, self._client, self._endpoints, self._policy, lease
        )
        while (chunk := journal.next_chunk()) is not None:
            record = journal.read()
            if record is None:
                raise InvariantViolation("IM3", f"the import of {name} vanished from import_files")
            self._progress(f"import {name}", record.uploads, max(record.chunks, record.uploads))
            numbering = Numbering(record.numbering) if record.numbering else None
            uploader.advance(chunk, limit=record.upload_limit, numbering=numbering)

    def _close(self, opened: _Opened, lease: Lease) -> ImportReport:
        """Write the rejects, then close the import; a crash between the two writes the same rejects again."""
        rejects = self._write_rejects(opened)
        record = opened.journal.finish(lease, rejects.name if rejects else None, self._clock.now())
        return self._report(opened, record, rejects, "done")

    def _reported_again(self, opened: _Opened, lease: Lease, record: FileRecord) -> ImportReport:
        """The file was imported before: say so, and write rejects that could not be written then."""
        rejects = None
        if record.rejects_file is None and record.rows > record.imported:
            rejects = self._write_rejects(opened)
            if rejects is not None:
                record = opened.journal.finish(lease, rejects.name, self._clock.now())
        finished = f" on {record.finished_at:%Y-%m-%d %H:%M:%S} UTC" if record.finished_at else ""
        name = "" if record.file_name == opened.path.name else f" as {record.file_name}"
        opened.notes.append(f"the same file was imported{finished}{name}: nothing was sent now")
        return self._report(opened, record, rejects, "already imported")

    def _write_rejects(self, opened: _Opened) -> Path | None:
        try:
            return write_rejects(opened.journal, opened.path, guarded=self._policy.guard_formulas)
        except OSError as error:
            where = f"{rejects_path(opened.path)}: {error.strerror or error}"
            opened.notes.append(
                f"the rejects file could not be written ({where}); run the import again to get it"
            )
            return None

    def _report(self, opened: _Opened, record: FileRecord, rejects: Path | None, status: str) -> ImportReport:
        return ImportReport(
            entity=opened.entity.value,
            file_name=opened.path.name,
            sha256=opened.sha256,
            status=status,
            rows=record.rows,
            imported=record.imported,
            duplicate=record.duplicate,
            refused=record.refused,
            unknown=record.unknown,
            accepted=0,
            chunks=record.chunks,
            uploads=record.uploads,
            problems=tuple(opened.journal.outcomes.read_problems(SHOWN_PROBLEMS)),
            notes=tuple(opened.notes),
            rejects=rejects,
            cost=opened.meter.cost(),
        )
