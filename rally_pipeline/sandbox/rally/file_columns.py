"""The columns of the four CSV templates, and the field of a record that each stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "text",
    "email",
    "integer",
    "percent",
    "decimal",
    "date",
    "choice",
    "tags",
    "company",
    "contact",
    "deal",
    "stage",
    "pipeline",
]


@dataclass(frozen=True, slots=True)
class FileColumn:
    """One column; `field` is where its value is stored, `choices` the closed set that the page lists."""

    name: str
    field: str
    kind: Kind = "text"
    required: bool = False
    choices: tuple[str, ...] = ()


def _plain(*pairs: str) -> tuple[FileColumn, ...]:
    split = (pair.partition(":") for pair in pairs)
    return tuple(FileColumn(name, field or name) for name, _, field in split)


_ADDRESS = _plain("address", "city", "state", "country", "postal_code:postalCode")

FILE_COLUMNS: dict[str, tuple[FileColumn, ...]] = {
    "contacts": (
        FileColumn("first_name", "firstName", required=True),
        FileColumn("last_name", "lastName", required=True),
        FileColumn("email", "email", "email", required=True),
        *_plain("phone", "mobile", "title", "department"),
        FileColumn("company_name", "companyId", "company"),
        *_ADDRESS,
        FileColumn(
            "lifecycle_stage",
            "lifecycleStage",
            "choice",
            choices=("lead", "qualified", "opportunity", "customer", "evangelist"),
        ),
        *_plain("lead_source:leadSource", "tags", "notes"),
    ),
    "companies": (
        FileColumn("name", "name", required=True),
        *_plain("domain", "industry", "description"),
        FileColumn("employee_count", "employeeCount", "integer"),
        FileColumn("annual_revenue", "annualRevenue", "decimal"),
        *_plain("phone", "website"),
        *_ADDRESS,
        FileColumn("tags", "tags", "tags"),
        *_plain("notes"),
    ),
    "deals": (
        FileColumn("name", "name", required=True),
        FileColumn("value", "value", "decimal"),
        *_plain("currency"),
        FileColumn("probability", "probability", "percent"),
        FileColumn("expected_close_date", "expectedCloseDate", "date"),
        FileColumn("stage_name", "stageId", "stage", required=True),
        FileColumn("pipeline_name", "pipelineId", "pipeline", required=True),
        FileColumn("contact_email", "contactId", "contact"),
        FileColumn("company_name", "companyId", "company"),
        *_plain("notes"),
    ),
    "activities": (
        FileColumn(
            "activity_type",
            "activityType",
            "choice",
            required=True,
            choices=("call", "meeting", "task", "email", "note"),
        ),
        FileColumn("subject", "subject", required=True),
        *_plain("body"),
        FileColumn("scheduled_at", "scheduledAt", "date"),
        FileColumn("completed_at", "completedAt", "date"),
        FileColumn("status", "status", "choice", choices=("pending", "completed", "cancelled")),
        FileColumn("priority", "priority", "choice", choices=("low", "normal", "high", "urgent")),
        FileColumn("due_date", "dueDate", "date"),
        FileColumn("contact_email", "contactId", "contact"),
        FileColumn("company_name", "companyId", "company"),
        FileColumn("deal_name", "dealId", "deal"),
    ),
}
