"""The files' part of the demo: an import whose answer is lost half-way, the way back into the mirror, and exports."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from rally_pipeline.cli.demo.comparing import column_names
from rally_pipeline.cli.demo.rally import catch_up_with_late_entries, compare
from rally_pipeline.cli.demo.stage import Stage, TableLine
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.rally.entities import Entity

SHARE = 0.05
LOST_UPLOAD = 1
LINKS = {"company_name", "stage_name", "pipeline_name"}
"""Columns of an export that name another record as it is called now, not as this record knew it."""


def perform(stage: Stage) -> list[TableLine]:
    """Import contacts, twice; bring the mirror up to date, compare it with Rally, and export."""
    imported = _import(stage)
    catch_up_with_late_entries(stage)
    tables = compare(stage)
    return [*tables, imported, *_export(stage)]


def _import(stage: Stage) -> TableLine:
    from dagster import AssetKey

    from rally_pipeline.rally.files.defs.imports import FILES, IMPORT_JOB, import_key
    from rally_pipeline.rally.files.folders import hash_file

    before = stage.sandbox.rally.counts()["contacts"]
    path, new, known = _write_file(stage, before)
    sha256, _ = hash_file(path)
    stage.sandbox.rally.files.switch(lost="half", lost_uploads=[LOST_UPLOAD])
    stage.session.instance.add_dynamic_partitions(FILES.name or "", [sha256])
    key = AssetKey(list(import_key(Entity.CONTACTS)))
    asked = []
    for _ in range(2):
        begun = stage.sandbox.log.total
        stage.session.run(IMPORT_JOB.name, tags={"dagster/partition": sha256}, assets=[key])
        asked.append(stage.sandbox.log.total - begun)
    (row,) = stage.tables.read("import_files").values()
    remarks.print(
        f"Imported {row['imported']} of {row['rows']} rows although an answer was lost half-way:"
        f" {row['duplicate']} duplicate, {row['refused']} refused; the second time {asked[1]} requests"
    )
    # What was already imported must not be asked for again.
    outcomes = (row["imported"], row["duplicate"], row["refused"], row["unknown"])
    wrong = _wrong_rows(stage, new, before) or outcomes != (len(new), len(known) + 1, 1, 0) or asked[1] > 0
    return stage.line("import_files", 1, int(wrong))


def _write_file(stage: Stage, present: int) -> tuple[Path, list[str], list[str]]:
    """A file with new people, one who is in Rally already, one twice, and one without a name; and their addresses."""
    number = max(250, round(present * SHARE))
    new = [f"new.person.{n}@import.example" for n in range(number)]
    known = list(islice(_addresses_of_long_ago(stage), 1))
    rows = [("New", f"Person {n}", email) for n, email in enumerate(new)]
    rows += [
        *(("Known", "Already", email) for email in known),
        ("New", "Twice", new[0]),
        ("", "Nameless", "no.name@import.example"),
    ]
    path = stage.session.settings.imports_path / "contacts" / "people.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("first_name", "last_name", "email"), *rows])
    return path, new, known


def _addresses_of_long_ago(stage: Stage) -> Iterator[str]:
    """Of contacts that nobody changed lately: where an answer was lost, one that was changed might be the import's."""
    before = stage.clock.now() - timedelta(hours=1)
    for record in stage.sandbox.rally.records("contacts"):
        if record["email"] and datetime.fromisoformat(record["updatedAt"]) < before:
            yield record["email"]


def _wrong_rows(stage: Stage, new: list[str], before: int) -> int:
    """New people who are not in Rally exactly once, and others who came in."""
    found = Counter(record["email"] for record in stage.sandbox.rally.records("contacts"))
    not_once = sum(found[email] != 1 for email in new)
    return not_once + abs(sum(found.values()) - before - len(new))


def _export(stage: Stage) -> list[TableLine]:
    """All four exports; each file must hold every record of the source once, and no other."""
    from rally_pipeline.rally.files.defs.exports import EXPORT_JOB

    stage.session.run(EXPORT_JOB.name)
    lines = []
    for entity in Entity:
        rows: list[dict[str, str]] = []
        for path in stage.session.settings.exports_path.glob(f"{entity.value}_*.csv"):
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows += csv.DictReader(file)
        records = [column_names(record) for record in stage.sandbox.rally.records(entity.value)]
        columns = sorted(_text_columns(rows, records))
        exported = Counter(tuple(_unguarded(row[name]) for name in columns) for row in rows)
        present = Counter(tuple(record[name] or "" for name in columns) for record in records)
        differing = max((exported - present).total(), (present - exported).total())
        lines.append(TableLine(f"{entity.value}_….csv", len(rows), None, None, None, len(records), differing))
    return lines


def _text_columns(rows: list[dict[str, str]], records: list[dict[str, Any]]) -> set[str]:
    """Columns of an export that show a text of the record as it is."""
    named = set(rows[0] if rows else ()).intersection(*records) - LINKS
    return {
        name
        for name in named
        if all(record[name] is None or isinstance(record[name], str) for record in records)
        and not name.endswith(("_at", "_date"))
    }


def _unguarded(cell: str) -> str:
    """Without the apostrophe that keeps a spreadsheet from running the cell."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in "=+-@\t\r" else cell
