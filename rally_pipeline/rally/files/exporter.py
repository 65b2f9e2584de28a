"""Exports: Rally's whole table as a file, checked before it takes its place."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.endpoints import FileEndpoints
from rally_pipeline.rally.files.folders import hash_file, make_folder, temporary_file, writing
from rally_pipeline.rally.files.importer import Progress, no_progress
from rally_pipeline.rally.files.known import count_records
from rally_pipeline.rally.files.parquet import require_parquet, write_parquet
from rally_pipeline.rally.files.problems import FileError
from rally_pipeline.rally.files.retention import export_name, remove_old_exports
from rally_pipeline.rally.files.sources import open_source
from rally_pipeline.rally.files.spreadsheets import neutralise_row
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.rally.files.workbooks import find_formula, write_workbook
from rally_pipeline.rally.results import Cost, Counted
from rally_pipeline.rally.spending import Meter

if TYPE_CHECKING:
    from rally_pipeline.http.transport import Response
    from rally_pipeline.rally.client import RallyClient
    from rally_pipeline.rally.files.sources import Source
    from rally_pipeline.warehouse import Warehouse

PREVIEW_ROWS = 5
_REPORTED_EVERY = 10_000


class ExportFormat(StrEnum):
    """What an export is stored as."""

    CSV = "csv"
    XLSX = "xlsx"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class ExportPolicy:
    """How an export is stored, believed and kept."""

    guard_formulas: bool = True
    """Put an apostrophe before cells that a spreadsheet would run; off for files that only machines read."""
    keep_days: int = 30
    """Older exports of the same entity and format are removed; the newest one always stays."""
    guard_absolute: int = 100
    guard_share: float = 0.10
    """An export that lacks more rows than both bounds allow is not believed without a person's word."""
    accept_shortfall: bool = False


@dataclass(frozen=True, slots=True)
class ExportReport(Counted):
    """An export that is in its place."""

    entity: str
    format: str
    path: Path
    rows: int
    bytes: int
    sha256: str
    headers: tuple[str, ...]
    mirror_rows: int | None
    """Rows of the mirror table; None if it was never complete."""
    removed: int
    """Older exports that were removed."""
    preview: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    cost: Cost

    @property
    def difference(self) -> int | None:
        """Rows more (or less) than the mirror has."""
        return None if self.mirror_rows is None else self.rows - self.mirror_rows

    def counts(self) -> dict[str, int | float]:
        found = {**Counted.counts(self), **self.cost.counts()}
        return found if self.difference is None else {**found, "difference": self.difference}


@dataclass(slots=True)
class _Checked:
    """A source on its way into the file: counts rows and keeps the first ones."""

    source: Source
    entity: Entity
    progress: Progress
    rows: int = 0
    preview: list[tuple[str, ...]] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        width = len(self.source.headers)
        is_text = self.source.dialect.format == "csv"
        for row in self.source.rows():
            if len(row.cells) > width or (is_text and len(row.cells) < width):
                raise FileError(
                    f"row {row.number} of the export has {len(row.cells)} cells, its header {width}"
                )
            cells = row.cells + ("",) * (width - len(row.cells))
            if len(self.preview) < PREVIEW_ROWS:
                self.preview.append(cells)
            self.rows += 1
            if self.rows % _REPORTED_EVERY == 0:
                self.progress(f"export {self.entity.value}", self.rows, None)
            yield cells


class Exporter:
    """Exports of one tenant. A file appears in the folder only when it was checked to its end."""

    def __init__(
        self,
        warehouse: Warehouse,
        client: RallyClient,
        policy: ExportPolicy | None = None,
        *,
        clock: Clock | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._endpoints = FileEndpoints(client.http)
        self._policy = policy or ExportPolicy()
        self._clock = clock or SystemClock()
        self._progress = progress

    def export(
        self, entity: Entity, folder: Path, file_format: ExportFormat = ExportFormat.CSV
    ) -> ExportReport:
        """Stream an export into `folder`, check it, move it to its dated name, and remove outdated ones.

        Raises:
            FileError: what Rally gave is cut, damaged, lacks documented columns, or far too short.
            ApiError: Rally cannot be used now.
            OSError: the folder cannot be written to.
        """
        if file_format is ExportFormat.PARQUET:
            require_parquet()
        meter = Meter(self._client, self._clock)
        make_folder(folder)
        notes: list[str] = []
        with temporary_file(folder, entity.value) as download:
            response = self._download(entity, file_format, download)
            taken_at = response.server_time or self._clock.now()
            path = folder / export_name(entity, taken_at, file_format.value)
            with writing(path) as target, open_source(download, TEMPLATES[entity].headers) as source:
                _check_headers(source.headers, entity, notes)
                checked = _Checked(source, entity, self._progress)
                self._write(checked, download, target, file_format, notes)
                mirror_rows = self._compare(entity, checked.rows, framed=response.framed, notes=notes)
        sha256, size = hash_file(path)
        return ExportReport(
            entity=entity.value,
            format=file_format.value,
            path=path,
            rows=checked.rows,
            bytes=size,
            sha256=sha256,
            headers=tuple(checked.source.headers),
            mirror_rows=mirror_rows,
            removed=remove_old_exports(path, taken_at - timedelta(days=self._policy.keep_days)),
            preview=tuple(checked.preview),
            notes=tuple(notes),
            cost=meter.cost(),
        )

    def save_template(self, entity: Entity, path: Path) -> Path:
        """Write Rally's template as it is.

        Raises:
            FileError: there is another file of that name.
        """
        if path.exists():
            raise FileError(f"{path} exists already: name another file or remove it")
        content, _ = self._endpoints.get_template(entity)
        with writing(path) as temporary:
            temporary.write_bytes(content)
        return path

    def _download(self, entity: Entity, file_format: ExportFormat, download: Path) -> Response:
        asked = "xlsx" if file_format is ExportFormat.XLSX else "csv"
        with download.open("w+b") as sink:
            response = self._endpoints.download_export(entity, asked, sink)
        # A workbook ends with its directory, so a cut shows by itself.
        response.framed = response.framed or asked == "xlsx"
        return response

    def _write(
        self, checked: _Checked, download: Path, target: Path, file_format: ExportFormat, notes: list[str]
    ) -> None:
        """Pass every row through its check into the file."""
        headers = checked.source.headers
        if file_format is ExportFormat.PARQUET:
            write_parquet(target, headers, checked)
        elif not self._policy.guard_formulas:
            for _ in checked:
                continue
            shutil.copyfile(download, target)
            formula = find_formula(download) if file_format is ExportFormat.XLSX else None
            if formula is not None:
                notes.append(f"cell {formula} is a formula: open the file with care")
        elif file_format is ExportFormat.XLSX:
            rows = (neutralise_row(cells) for cells in checked)
            write_workbook(target, checked.entity.value, neutralise_row(headers), rows)
        else:
            with target.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\r\n")
                writer.writerow(neutralise_row(headers))
                writer.writerows(neutralise_row(cells) for cells in checked)

    def _compare(self, entity: Entity, rows: int, *, framed: bool, notes: list[str]) -> int | None:
        """Hold the number of rows against the mirror's.

        Raises:
            FileError: too few rows to be believed.
        """
        policy = self._policy
        mirror_rows = count_records(self._warehouse, entity)
        if mirror_rows is None:
            notes.append(f"not compared: the mirror of {entity.value} was never complete")
        elif rows != mirror_rows:
            notes.append(f"{rows:,} rows, {mirror_rows:,} in the mirror")
        if not framed and rows != mirror_rows:
            raise FileError("the connection ended without saying that the export was complete: export again")
        known = mirror_rows or 0
        bound = max(policy.guard_absolute, policy.guard_share * known)
        if known - rows > bound and not policy.accept_shortfall:
            raise FileError(
                f"the export has {rows:,} rows but the mirror {known:,}: not believed;"
                " bring the mirror up to date, or accept the shortfall"
            )
        return mirror_rows


def _check_headers(headers: Sequence[str], entity: Entity, notes: list[str]) -> None:
    documented = TEMPLATES[entity].headers
    missing = [name for name in documented if name not in headers]
    if missing:
        raise FileError(f"the export of {entity.value} lacks documented columns: {', '.join(missing)}")
    further = [name for name in headers if name not in documented]
    if further:
        notes.append(f"further columns: {', '.join(further)}")
