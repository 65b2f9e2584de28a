"""The thirteen types of the Sell queue: names, fields, and the REST paths that can be asked about them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FieldType(StrEnum):
    """What a field holds; each has one column type per database and one rule for values that do not fit."""

    TEXT = "text"
    IDENTIFIER = "identifier"
    """Text that some sources write as a number."""
    INTEGER = "integer"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Field:
    """One field; Sell's names are snake_case, so field and column share the name."""

    name: str
    type: FieldType


class Entity(StrEnum):
    """A type of the queue, named as its asset and table (plural)."""

    ACCOUNTS = "accounts"
    USERS = "users"
    LEADS = "leads"
    CONTACTS = "contacts"
    DEALS = "deals"
    SOURCES = "sources"
    LOSS_REASONS = "loss_reasons"
    PIPELINES = "pipelines"
    STAGES = "stages"
    NOTES = "notes"
    TASKS = "tasks"
    TAGS = "tags"
    ASSOCIATED_CONTACTS = "associated_contacts"

    @property
    def singular(self) -> str:
        """`meta.type` in the queue."""
        return self.value.removesuffix("s")

    @property
    def table_name(self) -> str:
        """The mirror table."""
        return f"sell_{self.value}"

    @property
    def stream(self) -> str:
        """Where its quarantined records say they came from."""
        return f"sell.{self.value}"

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every field that the resource pages and the clients name; `id` first."""
        return _FIELDS[self]

    @property
    def list_paths(self) -> tuple[str, ...]:
        """List endpoints that take `ids=`; several where REST splits what the queue calls one type."""
        return _LIST_PATHS.get(self, (self.value,))

    @property
    def has_single_reads(self) -> bool:
        """Whether one record can be read by its id alone; the others are found by list only."""
        return self not in _LIST_ONLY

    @staticmethod
    def of_singular(queue_type: str) -> Entity | None:
        """The type of a queue item; None for one without a table."""
        return _OF_SINGULAR.get(queue_type)


_OF_SINGULAR = {entity.singular: entity for entity in Entity}
_LIST_PATHS: dict[Entity, tuple[str, ...]] = {
    Entity.ACCOUNTS: (),
    Entity.SOURCES: ("deal_sources", "lead_sources"),
    Entity.ASSOCIATED_CONTACTS: (),
}
_LIST_ONLY = frozenset({Entity.PIPELINES, Entity.STAGES, Entity.SOURCES})

_ID = Field("id", FieldType.INTEGER)
_TIMES = (Field("created_at", FieldType.INSTANT), Field("updated_at", FieldType.INSTANT))
_CHANNELS = "title description industry website email phone mobile fax twitter facebook linkedin skype"


def _fields(**names: str) -> tuple[Field, ...]:
    ordered = [Field(name, FieldType(kind)) for kind, listed in names.items() for name in listed.split()]
    return (_ID, *ordered, *_TIMES)


# Sources: the resource pages of the Core API, and fields that only its clients and taps have seen.
_FIELDS: dict[Entity, tuple[Field, ...]] = {
    Entity.ACCOUNTS: _fields(text="name currency time_format timezone phone subdomain"),
    Entity.USERS: _fields(
        text="name email phone_number status role team_name timezone identity_type",
        identifier="zendesk_user_id",
        boolean="invited confirmed detached sell_login_disabled",
        integer="reports_to",
        json="roles group system_tags",
        instant="deleted_at",
    ),
    Entity.LEADS: _fields(
        integer="creator_id owner_id source_id unqualified_reason_id",
        text=f"first_name last_name organization_name status {_CHANNELS}",
        json="address tags custom_fields",
    ),
    Entity.CONTACTS: _fields(
        integer="creator_id owner_id contact_id parent_organization_id",
        boolean="is_organization",
        text=f"name first_name last_name customer_status prospect_status {_CHANNELS}",
        json="address billing_address shipping_address tags custom_fields",
    ),
    Entity.DEALS: _fields(
        integer="creator_id owner_id contact_id organization_id stage_id source_id loss_reason_id"
        " unqualified_reason_id last_stage_change_by_id customized_win_likelihood",
        text="name currency dropbox_email",
        decimal="value",
        boolean="hot",
        instant="last_stage_change_at last_activity_at estimated_close_date added_at",
        json="tags custom_fields associated_contacts",
    ),
    Entity.SOURCES: _fields(integer="creator_id", text="name resource_type"),
    Entity.LOSS_REASONS: _fields(integer="creator_id", text="name"),
    Entity.PIPELINES: _fields(text="name locale_key", boolean="disabled"),
    Entity.STAGES: _fields(
        text="name category position_hash locale_key",
        boolean="active has_original_name",
        integer="position likelihood pipeline_id",
    ),
    Entity.NOTES: _fields(
        integer="creator_id resource_id",
        text="resource_type content type",
        boolean="is_important",
        json="tags",
    ),
    Entity.TASKS: _fields(
        integer="creator_id owner_id resource_id",
        text="resource_type content",
        boolean="completed overdue",
        instant="completed_at due_date remind_at",
    ),
    Entity.TAGS: _fields(integer="creator_id", text="name resource_type"),
    # Has no id of its own: the row is known by the id that the API gives, else by deal and contact.
    Entity.ASSOCIATED_CONTACTS: (
        Field("id", FieldType.IDENTIFIER),
        *_fields(integer="deal_id contact_id", text="role")[1:],
    ),
}
