"""Syncs and runs as the API gives them: every field checked, odd values noted, nothing refused but a missing id.

Field names are the API's own. Ids are opaque text: the documentation's own samples are not valid UUIDs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

MODES = ("upsert", "insert", "update", "mirror")
SYNC_STATUSES = ("draft", "active", "paused", "error")
LIVE = frozenset({"pending", "running"})
TERMINAL = frozenset({"completed", "failed", "cancelled"})
LONGEST_ID = 512


class RecordError(ValueError):
    """A row cannot be used at all; the message says why."""


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """A row of a list that cannot even be decoded, such as one with half a surrogate pair."""

    reason: str


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """One mapped column; `type_cast` is None where the value is sent as it is."""

    source_column: str
    destination_field: str
    type_cast: str | None = None

    def as_api(self) -> dict[str, str]:
        """The entry as the API writes it."""
        entry = {"source_column": self.source_column, "destination_field": self.destination_field}
        return entry if self.type_cast is None else {**entry, "type_cast": self.type_cast}


@dataclass(frozen=True, slots=True)
class Sync:
    """One sync. `schedule` is "" where it has none; `oddities` name fields whose value could not be used."""

    id: str
    name: str = ""
    description: str = ""
    model_id: str = ""
    destination_id: str = ""
    field_mapping: tuple[FieldMapping, ...] = ()
    sync_mode: str = ""
    schedule: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    primary_key: str = ""
    status: str = ""
    status_error: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    last_synced_at: datetime | None = None
    last_run_id: str | None = None
    oddities: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether SignalSmith itself follows the schedule."""
        return self.status == "active"

    @property
    def schedules_itself(self) -> bool:
        return self.is_active and bool(self.schedule.strip())


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `started_at` includes the time in the queue; `rows_synced` is shown as the API counts it."""

    id: str
    sync_id: str
    status: str
    created_at: datetime | None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    rows_synced: int = 0
    rows_failed: int = 0
    error_message: str = ""
    triggered_by: str | None = None

    @property
    def is_terminal(self) -> bool:
        """An unknown status counts as unfinished; the deadline of the one who waits ends it."""
        return self.status in TERMINAL

    @property
    def seconds(self) -> float | None:
        """From the start, time in the queue included, to the end."""
        if self.started_at is None or self.completed_at is None:
            return None
        return max(0.0, (self.completed_at - self.started_at).total_seconds())

    @property
    def failed_share(self) -> float:
        """Failed rows of all rows that were sent; 0 for a run without rows."""
        total = self.rows_synced + self.rows_failed
        return self.rows_failed / total if total else 0.0


def read_sync(row: object) -> Sync:
    """A sync from a row of the list.

    Raises:
        RecordError: not an object, or without a usable id.
    """
    fields = _object(row)
    reader = _Reader(fields)
    return Sync(
        id=read_id(fields),
        name=reader.text("name"),
        description=reader.text("description"),
        model_id=reader.text("model_id"),
        destination_id=reader.text("destination_id"),
        field_mapping=reader.mapping(),
        sync_mode=reader.text("sync_mode"),
        schedule=reader.text("schedule"),
        config=reader.config(),
        primary_key=reader.text("primary_key"),
        status=reader.text("status"),
        status_error=reader.text("status_error"),
        created_at=reader.instant("created_at"),
        updated_at=reader.instant("updated_at"),
        last_synced_at=reader.instant("last_synced_at"),
        last_run_id=reader.text("last_run_id") or None,
        oddities=tuple(reader.oddities),
    )


def read_run(row: object, *, sync_id: str) -> Run:
    """A run of the sync `sync_id`.

    Raises:
        RecordError: not an object, without a usable id, or a run of another sync.
    """
    fields = _object(row)
    reader = _Reader(fields)
    owner = reader.text("sync_id") or sync_id
    if owner != sync_id:
        raise RecordError("the run belongs to another sync")
    status = reader.text("status").strip().lower()
    return Run(
        id=read_id(fields),
        sync_id=sync_id,
        status="pending" if status == "queued" else status,
        created_at=reader.instant("created_at") or reader.instant("started_at"),
        started_at=reader.instant("started_at") or reader.instant("created_at"),
        completed_at=reader.instant("completed_at"),
        rows_synced=reader.count("rows_synced"),
        rows_failed=reader.count("rows_failed"),
        error_message=reader.text("error_message"),
        triggered_by=reader.text("triggered_by") or None,
    )


def read_id(fields: Mapping[str, Any]) -> str:
    """The id as text.

    Raises:
        RecordError: missing, empty, too long, or not text or a number.
    """
    value = fields.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RecordError(f"its id is {_kind(value)}")
    text = str(value)
    if len(text) > LONGEST_ID or not text.isprintable() or text in (".", ".."):
        raise RecordError("its id cannot be part of a path")
    return text


def newest_first(runs: Iterable[Run]) -> list[Run]:
    """Runs by creation, the newest first; the order of the API's list is not documented."""
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(runs, key=lambda run: (run.created_at or oldest, run.id), reverse=True)


def _object(row: object) -> Mapping[str, Any]:
    if isinstance(row, DamagedRow):
        raise RecordError(row.reason)
    if not isinstance(row, Mapping):
        raise RecordError(f"the row is {_kind(row)} instead of an object")
    return row


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if value == "":
        return "empty"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


class _Reader:
    """Reads fields of one row and notes the ones whose value does not fit."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self.oddities: list[str] = []

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if value is None or isinstance(value, str):
            return value or ""
        self.oddities.append(f"{name} is {_kind(value)} instead of text")
        return ""

    def count(self, name: str) -> int:
        value = self._fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
            return value
        if value is not None:
            self.oddities.append(f"{name} is no count")
        return 0

    def instant(self, name: str) -> datetime | None:
        value = self._fields.get(name)
        if value in (None, ""):
            return None
        try:
            instant = datetime.fromisoformat(value)
            return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            self.oddities.append(f"{name} is no ISO 8601 time")
            return None

    def config(self) -> Mapping[str, Any]:
        value = self._fields.get("config")
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self.oddities.append(f"config is {_kind(value)} instead of an object")
        return {}

    def mapping(self) -> tuple[FieldMapping, ...]:
        value = self._fields.get("field_mapping")
        if value is None:
            return ()
        if not isinstance(value, list):
            self.oddities.append(f"field_mapping is {_kind(value)} instead of a list")
            return ()
        found = []
        for number, entry in enumerate(value, 1):
            mapped = _read_mapping(entry)
            if mapped is None:
                self.oddities.append(f"entry {number} of field_mapping cannot be read")
            else:
                found.append(mapped)
        return tuple(found)


def _read_mapping(entry: object) -> FieldMapping | None:
    if not isinstance(entry, Mapping):
        return None
    source, target, cast = (entry.get(name) for name in ("source_column", "destination_field", "type_cast"))
    if not isinstance(source, str) or not isinstance(target, str) or not source or not target:
        return None
    return FieldMapping(source, target, cast if isinstance(cast, str) and cast else None)
