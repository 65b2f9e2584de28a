"""The four entities of Rally and their fields, as the API names them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FieldType(StrEnum):
    """What a field holds; each has one column type per database and one rule for values that do not fit."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    INSTANT = "instant"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `name` as in the API's JSON, `column` as in the warehouse."""

    name: str
    column: str
    type: FieldType


class Entity(StrEnum):
    """An entity, named as in list paths and in the feed's `entities` parameter (plural)."""

    CONTACTS = "contacts"
    COMPANIES = "companies"
    DEALS = "deals"
    ACTIVITIES = "activities"

    @property
    def singular(self) -> str:
        """The feed's `entityType`. An explicit table: adding or cutting an "s" is wrong for two of the four."""
        return _SINGULAR[self]

    @property
    def table_name(self) -> str:
        """The mirror table."""
        return f"rally_{self.value}"

    @property
    def stream(self) -> str:
        """Name of the lease and of the `sync_state` row."""
        return f"rally.{self.value}"

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every field that the API pages name, in their order; `id` first, `createdAt`, `updatedAt` last."""
        return _FIELDS[self]

    @staticmethod
    def of_singular(entity_type: str) -> Entity | None:
        """The entity of a feed entry; None for a type that the documentation does not know."""
        return _OF_SINGULAR.get(entity_type)


_SINGULAR = {
    Entity.CONTACTS: "contact",
    Entity.COMPANIES: "company",
    Entity.DEALS: "deal",
    Entity.ACTIVITIES: "activity",
}
_OF_SINGULAR = {singular: entity for entity, singular in _SINGULAR.items()}


def _column(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _fields(**names: str) -> tuple[Field, ...]:
    ordered = [
        Field(name, _column(name), FieldType(kind))
        for kind, listed in names.items()
        for name in listed.split()
    ]
    first = [Field("id", "id", FieldType.TEXT), Field("tenantId", "tenant_id", FieldType.TEXT)]
    last = [
        Field("createdAt", "created_at", FieldType.INSTANT),
        Field("updatedAt", "updated_at", FieldType.INSTANT),
    ]
    return (*first, *ordered, *last)


# Sources: API pages "contacts", "companies", "deals", "activities"; request and response tables together.
_FIELDS = {
    Entity.CONTACTS: _fields(
        text="firstName lastName fullName email phone mobile title department linkedInUrl twitterHandle"
        " address city state country postalCode companyId lifecycleStage leadSource tags notes ownerId",
        integer="leadScore",
    ),
    Entity.COMPANIES: _fields(
        text="name domain industry description phone website linkedInUrl address city state country"
        " postalCode notes ownerId",
        integer="employeeCount",
        decimal="annualRevenue",
        json="tags",
    ),
    Entity.DEALS: _fields(
        text="pipelineId stageId stageName contactId contactName companyId companyName name currency status"
        " notes ownerId ownerName",
        decimal="value",
        integer="probability",
        instant="expectedCloseDate actualCloseDate lastActivityAt",
    ),
    Entity.ACTIVITIES: _fields(
        text="activityType subject body contactId companyId dealId priority status callDirection callOutcome"
        " location meetingUrl ownerId",
        integer="callDurationSeconds durationMinutes",
        instant="scheduledAt dueDate completedAt",
    ),
}
