"""The four entities and their fields, as the API pages give them: what a request may hold and what an
answer shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["text", "email", "guid", "integer", "decimal", "instant", "tags"]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One stored field.

    `writable`: a request may set it; `required`: it must; `choices`: a closed set of texts; `limits`: least
    and greatest integer; `detail`: a contact field that answers may leave out (switch `contact_details`).
    """

    name: str
    kind: Kind = "text"
    required: bool = False
    writable: bool = True
    default: str | None = None
    choices: tuple[str, ...] = ()
    limits: tuple[int, int] | None = None
    detail: bool = False


@dataclass(frozen=True)
class EntitySpec:
    """One entity. `fields` are stored; `members` are these and a computed one in the order of an answer, where
    id and tenant come before them and both times after.
    """

    name: str
    singular: str
    fields: tuple[FieldSpec, ...]
    members: tuple[str, ...]
    upsert_key: tuple[str, ...] = ()
    by_name: Mapping[str, FieldSpec] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {spec.name: spec for spec in self.fields})

    @property
    def order(self) -> tuple[str, ...]:
        """All members of an answer in their order."""
        return ("id", "tenantId", *self.members, "createdAt", "updatedAt")

    def blank(self) -> dict[str, Any]:
        """All stored fields at their defaults."""
        return {spec.name: spec.default for spec in self.fields}


def _text(*names: str) -> tuple[FieldSpec, ...]:
    return tuple(FieldSpec(name) for name in names)


def _details(*names: str) -> tuple[FieldSpec, ...]:
    return tuple(FieldSpec(name, detail=True) for name in names)


def _links(*names: str) -> tuple[FieldSpec, ...]:
    return tuple(FieldSpec(name, "guid") for name in names)


def _spec(
    name: str,
    singular: str,
    *fields: FieldSpec,
    upsert_key: tuple[str, ...] = (),
    after: str = "",
    computed: str = "",
) -> EntitySpec:
    names = [spec.name for spec in fields]
    if computed:
        names.insert(names.index(after) + 1, computed)
    return EntitySpec(name, singular, fields, tuple(names), upsert_key)


ADDRESS = ("address", "city", "state", "country", "postalCode")
LIFECYCLE_STAGES = ("lead", "qualified", "opportunity", "customer", "evangelist")
ACTIVITY_TYPES = ("note", "task", "call", "meeting")

CONTACTS = _spec(
    "contacts",
    "contact",
    FieldSpec("firstName", required=True),
    FieldSpec("lastName", required=True),
    FieldSpec("email", "email", required=True),
    *_text("phone", "mobile", "title", "department"),
    *_links("companyId"),
    FieldSpec("lifecycleStage", default="lead"),
    *_text("leadSource"),
    FieldSpec("leadScore", "integer", limits=(0, 100)),
    *_text("tags", "notes"),
    *_links("ownerId"),
    *_details("linkedInUrl", "twitterHandle", *ADDRESS),
    upsert_key=("email",),
    after="lastName",
    computed="fullName",
)

COMPANIES = _spec(
    "companies",
    "company",
    FieldSpec("name", required=True),
    *_text("domain", "industry", "description"),
    FieldSpec("employeeCount", "integer", limits=(0, 2**31 - 1)),
    FieldSpec("annualRevenue", "decimal"),
    *_text("phone", "website", "linkedInUrl", *ADDRESS),
    FieldSpec("tags", "tags"),
    *_text("notes"),
    *_links("ownerId"),
    upsert_key=("domain",),
)

DEALS = _spec(
    "deals",
    "deal",
    FieldSpec("pipelineId", "guid", required=True),
    FieldSpec("stageId", "guid", required=True),
    FieldSpec("stageName", writable=False),
    *_links("contactId"),
    FieldSpec("contactName", writable=False),
    *_links("companyId"),
    FieldSpec("companyName", writable=False),
    FieldSpec("name", required=True),
    FieldSpec("value", "decimal"),
    FieldSpec("currency", default="USD"),
    FieldSpec("probability", "integer", limits=(0, 100)),
    FieldSpec("expectedCloseDate", "instant"),
    FieldSpec("actualCloseDate", "instant", writable=False),
    FieldSpec("status", default="open", writable=False),
    *_text("notes"),
    *_links("ownerId"),
    FieldSpec("ownerName", writable=False),
    FieldSpec("lastActivityAt", "instant", writable=False),
    upsert_key=("name", "pipelineId"),
)

ACTIVITIES = _spec(
    "activities",
    "activity",
    FieldSpec("activityType", required=True, choices=ACTIVITY_TYPES),
    FieldSpec("subject", required=True),
    *_text("body"),
    *_links("contactId", "companyId", "dealId"),
    FieldSpec("scheduledAt", "instant"),
    FieldSpec("dueDate", "instant"),
    FieldSpec("completedAt", "instant", writable=False),
    FieldSpec("priority", choices=("low", "normal", "high", "urgent")),
    FieldSpec("status", default="pending", choices=("pending", "completed")),
    FieldSpec("callDirection", choices=("inbound", "outbound")),
    *_text("callOutcome"),
    FieldSpec("callDurationSeconds", "integer", limits=(0, 2**31 - 1)),
    FieldSpec("durationMinutes", "integer", limits=(0, 2**31 - 1)),
    *_text("location", "meetingUrl"),
    *_links("ownerId"),
)

ENTITIES: dict[str, EntitySpec] = {spec.name: spec for spec in (COMPANIES, CONTACTS, DEALS, ACTIVITIES)}
"""By plural name, as in list paths and in the feed's filter; referenced entities stand before those that
refer to them.
"""

LINKS = {"contactId": "contacts", "companyId": "companies", "dealId": "deals"}
"""Which entity each link field points to."""
