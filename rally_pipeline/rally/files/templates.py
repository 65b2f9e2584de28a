"""The columns of the four CSV templates: names, rules, and the JSON fields they correspond to.

Source: API page "import-export". The marks of required columns are lost in the text at hand, so those are
required whose absence a documented error names, and those that the JSON request requires. At run time the
headers come from the server's own template; a header that is unknown here is then carried as plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.cells import (
    MAX_TEXT_CHARACTERS,
    DateReader,
    EnumerationReader,
    IntegerReader,
    Reader,
    TextReader,
    read_currency,
    read_decimal,
    read_domain,
    read_email,
)

LIFECYCLE_STAGES = ("lead", "qualified", "opportunity", "customer", "evangelist")
ACTIVITY_TYPES = ("call", "meeting", "task", "email", "note")
ACTIVITY_STATUSES = ("pending", "completed", "cancelled")
PRIORITIES = ("low", "normal", "high", "urgent")

_line = TextReader()
_text = TextReader(MAX_TEXT_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a template."""

    name: str
    read: Reader = _line
    required: bool = False
    field: str | None = None
    """The field of the record's JSON that holds this value; None where it is reached through a link, or not
    at all."""
    link: Entity | None = None
    """The record that this cell names, by e-mail for contacts and by name otherwise; it must exist
    already."""


@dataclass(frozen=True, slots=True)
class Template:
    """The columns of one entity in the order of the template."""

    entity: Entity
    columns: tuple[Column, ...]

    @property
    def headers(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def position(self, name: str) -> int | None:
        """The place of a column, or None where the template lacks it."""
        return next((place for place, column in enumerate(self.columns) if column.name == name), None)

    def following(self, headers: Sequence[str]) -> Template:
        """This template with exactly the columns that the server names, in the server's order."""
        known = {column.name: column for column in self.columns}
        return replace(self, columns=tuple(known.get(name) or Column(name, _text) for name in headers))


def _link(name: str, entity: Entity) -> Column:
    return Column(name, read_email if entity is Entity.CONTACTS else _line, link=entity)


def _fields(*pairs: str) -> tuple[Column, ...]:
    """Plain text columns, each as `name` or `name:jsonField`."""
    return tuple(
        Column(name, field=field or name) for name, _, field in (pair.partition(":") for pair in pairs)
    )


def _moment(name: str, field: str) -> Column:
    return Column(name, DateReader(name), field=field)


def _choice(name: str, field: str, values: tuple[str, ...], *, required: bool = False) -> Column:
    return Column(name, EnumerationReader(name, values), required, field)


_ADDRESS = _fields("address", "city", "state", "country", "postal_code:postalCode")
_NOTES = Column("notes", _text, field="notes")

TEMPLATES: dict[Entity, Template] = {
    Entity.CONTACTS: Template(
        Entity.CONTACTS,
        (
            Column("first_name", required=True, field="firstName"),
            Column("last_name", required=True, field="lastName"),
            Column("email", read_email, required=True, field="email"),
            *_fields("phone", "mobile", "title", "department"),
            _link("company_name", Entity.COMPANIES),
            *_ADDRESS,
            _choice("lifecycle_stage", "lifecycleStage", LIFECYCLE_STAGES),
            *_fields("lead_source:leadSource", "tags"),
            _NOTES,
        ),
    ),
    Entity.COMPANIES: Template(
        Entity.COMPANIES,
        (
            Column("name", required=True, field="name"),
            Column("domain", read_domain, field="domain"),
            *_fields("industry"),
            Column("description", _text, field="description"),
            Column("employee_count", IntegerReader(), field="employeeCount"),
            Column("annual_revenue", read_decimal, field="annualRevenue"),
            *_fields("phone", "website"),
            *_ADDRESS,
            *_fields("tags"),
            _NOTES,
        ),
    ),
    Entity.DEALS: Template(
        Entity.DEALS,
        (
            Column("name", required=True, field="name"),
            Column("value", read_decimal, field="value"),
            Column("currency", read_currency, field="currency"),
            Column("probability", IntegerReader(0, 100), field="probability"),
            _moment("expected_close_date", "expectedCloseDate"),
            Column("stage_name", required=True, field="stageName"),
            Column("pipeline_name", required=True),
            _link("contact_email", Entity.CONTACTS),
            _link("company_name", Entity.COMPANIES),
            _NOTES,
        ),
    ),
    Entity.ACTIVITIES: Template(
        Entity.ACTIVITIES,
        (
            _choice("activity_type", "activityType", ACTIVITY_TYPES, required=True),
            Column("subject", required=True, field="subject"),
            Column("body", _text, field="body"),
            _moment("scheduled_at", "scheduledAt"),
            _moment("completed_at", "completedAt"),
            _choice("status", "status", ACTIVITY_STATUSES),
            _choice("priority", "priority", PRIORITIES),
            _moment("due_date", "dueDate"),
            _link("contact_email", Entity.CONTACTS),
            _link("company_name", Entity.COMPANIES),
            _link("deal_name", Entity.DEALS),
        ),
    ),
}
