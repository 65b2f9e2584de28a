"""Files to import, made up from a seed, and how their rows are told apart again in Rally."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.templates import TEMPLATES

Row = dict[str, str]
_KEYS = {
    Entity.CONTACTS: ("email",),
    Entity.COMPANIES: ("name",),
    Entity.DEALS: ("name",),
    Entity.ACTIVITIES: ("subject", "body"),
}
"""Columns, named as the record's fields, by which equal rows of these files are equal."""


@dataclass
class ImportFile:
    """One file on the disk. The rows are in its order; the first one is row 2 of the file."""

    entity: Entity
    path: Path
    rows: list[Row]
    is_done: bool = False
    known: list[dict[str, Any]] = field(default_factory=list)
    """Records that Rally is to have before the file comes: what its duplicates are duplicates of."""


def key_of(entity: Entity, values: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row or a record is recognised by in these histories; the case of e-mail addresses does not matter."""
    return tuple(str(values.get(name) or "").casefold() for name in _KEYS[entity])


def make_file(arguments: Mapping[str, Any], number: int, folder: Path) -> ImportFile:
    """The `number`-th file; its names are its own, so that no other file can be meant."""
    dice = Random(arguments["seed"])
    entity = Entity(arguments["entity"])
    rows = [_row(entity, f"{number}.{place}", dice) for place in range(arguments["rows"])]
    chosen = dice.sample(rows, min(arguments["known"], len(rows))) if entity is Entity.CONTACTS else []
    known = [{"firstName": "Old", "lastName": "Friend", "email": row["email"].upper()} for row in chosen]
    rows += [dict(dice.choice(rows)) for _ in range(arguments["repeated"])]
    for _ in range(arguments["bad"]):
        rows.append(_spoiled(entity, _row(entity, f"{number}.bad{len(rows)}", dice)))
    dice.shuffle(rows)
    path = folder / f"{number}.csv"
    text = io.StringIO()
    writer = csv.DictWriter(text, TEMPLATES[entity].headers, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return ImportFile(entity, path, rows, known=known)


def _row(entity: Entity, name: str, dice: Random) -> Row:
    match entity:
        case Entity.CONTACTS:
            return {"first_name": f"First {name}", "last_name": "Last", "email": f"p{name}@import.example"}
        case Entity.COMPANIES:
            return {"name": f"Company {name}", "domain": f"c{name}.example", "annual_revenue": "1.50"}
        case Entity.DEALS:
            return {
                "name": f"Deal {name}",
                "value": "7.25",
                "stage_name": "Proposal",
                "pipeline_name": "Sales",
            }
        case Entity.ACTIVITIES:
            # A line break makes the lines of the file run ahead of its rows.
            body = dice.choice(("", "one\ntwo", "short"))
            return {"activity_type": "call", "subject": f"Call {name}", "body": body, "status": "pending"}


def _spoiled(entity: Entity, row: Row) -> Row:
    """A row that our own check lets through and Rally refuses, or one that our check refuses."""
    match entity:
        case Entity.CONTACTS:
            return {**row, "email": f"{row['email']} {row['email']}"}
        case Entity.COMPANIES:
            return {**row, "name": ""}
        case Entity.DEALS:
            return {**row, "stage_name": "No such stage"}
        case Entity.ACTIVITIES:
            return {**row, "contact_email": f"nobody-{row['subject'].replace(' ', '')}@import.example"}
