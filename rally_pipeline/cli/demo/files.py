"""The files' part of the demo: an import whose answer is lost half-way, the way back into the mirror, and an export."""

from __future__ import annotations

import csv
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rally_pipeline.cli.demo.rally import LATE_SECONDS
from rally_pipeline.cli.demo.stage import DemoLine, Stage
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.rally.entities import Entity

if TYPE_CHECKING:
    from rally_pipeline.rally.files.importer import ImportReport
    from rally_pipeline.rally.mirror import RallyMirror

SHARE = 0.05
ROWS_AN_UPLOAD = 100
LOST_UPLOAD = 2


def perform(stage: Stage) -> list[DemoLine]:
    """Import contacts, bring the mirror up to date, compare it with Rally, and export."""
    from rally_pipeline.rally.connection import open_mirror

    with open_mirror(stage.settings, clock=stage.clock, progress=stage.progress) as mirror:
        return [_import(stage, mirror), _export(stage, mirror)]


def _import(stage: Stage, mirror: RallyMirror) -> DemoLine:
    from rally_pipeline.rally.files.chunks import ChunkLimits
    from rally_pipeline.rally.files.importer import Importer
    from rally_pipeline.rally.files.policy import ImportPolicy

    before = stage.sandbox.rally.counts()["contacts"]
    path, new = _write_file(stage, before)
    policy = replace(ImportPolicy.of(stage.settings), limits=ChunkLimits(max_rows=ROWS_AN_UPLOAD))
    importer = Importer(mirror.warehouse, mirror.client, policy, clock=stage.clock, progress=stage.progress)
    importer.prepare()
    stage.sandbox.rally.files.switch(lost="half", lost_uploads=[LOST_UPLOAD])
    begun = time.monotonic()
    report = importer.run(Entity.CONTACTS, path)
    again = importer.run(Entity.CONTACTS, path)
    stage.progress.finish(f"import {path.name}")
    # Entries of the new contacts may show up late in the feed, like all others here.
    for wait in (0.0, LATE_SECONDS):
        stage.clock.sleep(wait)
        mirror.read_changes()
    mirror.settle(Entity.CONTACTS)
    found = mirror.verify(Entity.CONTACTS)
    seconds = time.monotonic() - begun
    remarks.print(
        f"Imported {report.imported} of {report.rows} rows although an answer was lost half-way:"
        f" {report.duplicate} duplicate, {report.refused} refused; {again.status} the second time"
    )
    wrong = _wrong_rows(stage, report, new, before) + again.cost.requests
    return DemoLine(
        "import_files",
        report.rows,
        report.imported,
        0,
        0,
        report.cost.requests,
        1 + report.chunks,
        seconds,
        wrong + found.differences + found.in_flight,
    )


def _write_file(stage: Stage, present: int) -> tuple[Path, list[str]]:
    """A file with new people, one who is in Rally already, one twice, and one without a name."""
    number = max(250, round(present * SHARE))
    new = [f"new.person.{n}@import.example" for n in range(number)]
    known = next(stage.sandbox.rally.records("contacts"))["email"]
    rows = [("New", f"Person {n}", email) for n, email in enumerate(new)]
    rows += [
        ("Known", "Already", known),
        ("New", "Twice", new[0]),
        ("", "Nameless", "no.name@import.example"),
    ]
    path = stage.settings.imports_path / "contacts" / "people.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("first_name", "last_name", "email"), *rows])
    return path, new


def _wrong_rows(stage: Stage, report: ImportReport, new: list[str], before: int) -> int:
    """Rows that are not in Rally exactly once, and outcomes that are not as they should be."""
    found = Counter(record["email"] for record in stage.sandbox.rally.records("contacts"))
    not_once = sum(found[email] != 1 for email in new)
    surplus = abs(sum(found.values()) - before - len(new))
    outcomes = (report.imported, report.duplicate, report.refused, report.unknown)
    return not_once + surplus + (outcomes != (len(new), 2, 1, 0))


def _export(stage: Stage, mirror: RallyMirror) -> DemoLine:
    from rally_pipeline.rally.files.exporter import Exporter

    begun = time.monotonic()
    exporter = Exporter(mirror.warehouse, mirror.client, clock=stage.clock, progress=stage.progress)
    report = exporter.export(Entity.CONTACTS, stage.settings.exports_path)
    present = stage.sandbox.rally.counts()["contacts"]
    seconds = time.monotonic() - begun
    return DemoLine(
        report.path.name, report.rows, 0, 0, 0, report.cost.requests, 1, seconds, abs(report.rows - present)
    )
