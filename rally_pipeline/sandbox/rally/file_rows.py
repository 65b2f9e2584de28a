"""Rows of an uploaded CSV into records, with the documented messages; and records into rows of an export."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from .field_index import fold_email
from .file_columns import FILE_COLUMNS, FileColumn
from .file_switches import FileSwitches
from .guids import draw_guid
from .instants import parse_instant, text_of
from .schema import ENTITIES
from .store import Moment, Store
from .tenant import Tenant
from .writes import Writer

_EMAIL = re.compile(r"[^@\s,;<>\"]{1,64}@[^@\s,;<>\"]{1,190}\.[^@\s,;<>\".]{2,63}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{1,7})?Z)?", re.ASCII)
_DEFAULTED_CHOICES = {"activityType": "note", "status": "pending"}
"""What stands in for a CSV value that the JSON API does not list, while the other fields are derived."""


class RowError(Exception):
    """A row that is skipped; the text is documented, without its `Row n`."""


class RowImporter:
    """Takes rows of one upload, in order."""

    def __init__(
        self, store: Store, writer: Writer, tenant: Tenant, switches: FileSwitches, entity: str
    ) -> None:
        self._store = store
        self._writer = writer
        self._tenant = tenant
        self._switches = switches
        self._entity = entity
        self._columns = {column.name: column for column in FILE_COLUMNS[entity]}

    def read(self, cells: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
        """The record's fields, and what is wrong with the row."""
        fields: dict[str, Any] = {}
        problems: list[str] = []
        for name, column in self._columns.items():
            text = cells.get(name, "")
            if self._switches.trim:
                text = text.strip()
            try:
                fields[column.field] = self._read_cell(column, text, cells)
            except RowError as error:
                problems.append(str(error))
        if not problems:
            duplicate = self._find_duplicate(fields)
            if duplicate:
                problems.append(duplicate)
        return fields, problems

    def create(self, fields: dict[str, Any], dice: Any, moment: Moment, by: str) -> None:
        """Store the record of a row without problems."""
        if self._entity != "activities":
            self._writer.create(self._entity, fields, by=by, moment=moment)
            return
        # The CSV knows types and states, and a time of completion, that the JSON request does not take.
        told = {
            name: fields[name] for name in (*_DEFAULTED_CHOICES, "completedAt") if fields[name] is not None
        }
        known = self._writer.check(
            "activities", {**fields, **{n: v for n, v in _DEFAULTED_CHOICES.items() if n in told}}
        )
        if told.get("status") == "completed" and "completedAt" not in told:
            told["completedAt"] = text_of(moment.wall)
        self._store.write("activities", draw_guid(dice), {**known, **told}, by=by, moment=moment)

    def _read_cell(self, column: FileColumn, text: str, cells: Mapping[str, str]) -> Any:
        if not text.strip():
            if column.required:
                raise RowError(f"Required field '{column.name}' is empty")
            return None
        if column.kind == "stage":
            return self._find_stage(text, cells.get("pipeline_name", "").strip())
        return _READERS[column.kind](self, column, text)

    def _read_text(self, _column: FileColumn, text: str) -> str:
        return text

    def _read_email(self, _column: FileColumn, text: str) -> str:
        if not _EMAIL.fullmatch(text):
            raise RowError(f"Invalid email format '{text}'")
        return text

    def _read_integer(self, column: FileColumn, text: str) -> int:
        most = 100 if column.kind == "percent" else 2**31 - 1
        if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= most):
            raise RowError(f"Invalid {column.name} value '{text}'")
        return int(text)

    def _read_decimal(self, column: FileColumn, text: str) -> str:
        try:
            number = Decimal(text)
        except InvalidOperation:
            raise RowError(f"Invalid {column.name} value '{text}'") from None
        if not number.is_finite() or len(number.as_tuple().digits) > 29:
            raise RowError(f"Invalid {column.name} value '{text}'")
        return format(number, "f")

    def _read_date(self, column: FileColumn, text: str) -> str:
        if not _DATE.fullmatch(text):
            raise RowError(f"Invalid date format in '{column.name}'")
        try:
            ticks, _ = parse_instant(text)
        except ValueError:
            raise RowError(f"Invalid date format in '{column.name}'") from None
        return text_of(ticks, 7 if "." in text else 0)

    def _read_choice(self, column: FileColumn, text: str) -> str:
        if text not in column.choices:
            raise RowError(f"Invalid {column.name} value '{text}'")
        return text

    def _read_tags(self, _column: FileColumn, text: str) -> list[str]:
        return [tag.strip() for tag in text.split(",") if tag.strip()]

    def _find_contact(self, _column: FileColumn, text: str) -> str:
        found = self._store.find("contacts", "email", fold_email(text))
        return self._one("Contact", text, found)

    def _find_company(self, _column: FileColumn, text: str) -> str:
        return self._one("Company", text, self._find_named("companies", text))

    def _find_deal(self, _column: FileColumn, text: str) -> str:
        return self._one("Deal", text, self._find_named("deals", text))

    def _find_pipeline(self, _column: FileColumn, text: str) -> str:
        for pipeline in self._tenant.pipelines:
            if pipeline.name == text:
                return pipeline.id
        raise RowError(f"Pipeline '{text}' not found")

    def _find_stage(self, name: str, pipeline_name: str) -> str:
        pipeline = next((each for each in self._tenant.pipelines if each.name == pipeline_name), None)
        if pipeline is None:
            return ""  # its own column says what is wrong
        for stage in pipeline.stages:
            if stage.name == name:
                return stage.id
        raise RowError(f"Stage '{name}' not found")

    def _find_named(self, entity: str, name: str) -> list[str]:
        if self._switches.link_match == "exact":
            return self._store.find(entity, "name", name)
        folded = name.casefold()
        records = self._store.collections[entity].view("createdAt")
        spec = ENTITIES[entity]
        return [record.id for record in records if str(record.fields(spec)["name"]).casefold() == folded]

    def _one(self, kind: str, text: str, found: Sequence[str]) -> str:
        if not found or (len(found) > 1 and self._switches.same_names == "refuse"):
            raise RowError(f"{kind} '{text}' not found")
        return found[0]

    def _find_duplicate(self, fields: Mapping[str, Any]) -> str | None:
        entity = self._entity
        if entity == "contacts" and self._store.find(entity, "email", fold_email(fields["email"])):
            return f"Duplicate contact with email '{fields['email']}'"
        if entity not in self._switches.duplicates:
            return None
        if entity == "companies":
            name = "domain" if fields["domain"] else "name"
            if self._store.find(entity, name, fields[name]):
                return f"Duplicate company with {name} '{fields[name]}'"
        if entity == "deals" and self._writer.match(entity, fields):
            return f"Duplicate deal with name '{fields['name']}'"
        if entity == "activities":
            same = self._store.find(entity, "subject", fields["subject"])
            known = (self._store.fields(entity, record_id) or {} for record_id in same)
            if any(all(value in (None, each.get(name)) for name, value in fields.items()) for each in known):
                return f"Duplicate activity with subject '{fields['subject']}'"
        return None


_READERS: dict[str, Callable[[RowImporter, FileColumn, str], Any]] = {
    "text": RowImporter._read_text,
    "email": RowImporter._read_email,
    "integer": RowImporter._read_integer,
    "percent": RowImporter._read_integer,
    "decimal": RowImporter._read_decimal,
    "date": RowImporter._read_date,
    "choice": RowImporter._read_choice,
    "tags": RowImporter._read_tags,
    "company": RowImporter._find_company,
    "contact": RowImporter._find_contact,
    "deal": RowImporter._find_deal,
    "pipeline": RowImporter._find_pipeline,
}


def export_headers(entity: str, switches: FileSwitches) -> list[str]:
    """The header row of an export."""
    names = [column.name for column in FILE_COLUMNS[entity]]
    return ["id", *names] if switches.export_id else names


def export_rows(
    store: Store, tenant: Tenant, switches: FileSwitches, entity: str, moment: Moment
) -> Iterator[list[str]]:
    """The records of an entity as rows, oldest first."""
    spec = ENTITIES[entity]
    collections = store.reading("lists", moment)[0]

    def linked(target: str, record_id: str | None, field: str) -> str:
        record = collections[target].by_id.get(record_id or "")
        return "" if record is None else str(record.fields(ENTITIES[target])[field])

    def text(column: FileColumn, fields: Mapping[str, Any]) -> str:
        value = fields[column.field]
        if value is None:
            return ""
        if column.kind == "company":
            return linked("companies", value, "name")
        if column.kind == "contact":
            return linked("contacts", value, "email")
        if column.kind == "deal":
            return linked("deals", value, "name")
        if column.kind == "stage":
            return str(fields["stageName"])
        if column.kind == "pipeline":
            pipeline = tenant.pipeline(value)
            return pipeline.name if pipeline else ""
        if column.kind == "tags":
            return ",".join(value)
        if column.kind == "date" and switches.export_dates == "date":
            return str(value)[:10]
        return str(value)

    for record in list(collections[entity].view("createdAt")):
        fields = record.fields(spec)
        row = [text(column, fields) for column in FILE_COLUMNS[entity]]
        yield [record.id, *row] if switches.export_id else row
