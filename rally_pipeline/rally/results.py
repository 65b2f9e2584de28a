"""What each operation reports: frozen records of plain numbers, for metadata, checks and the terminal."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime


class Counted:
    """Numbers of a result under their field names."""

    def counts(self) -> dict[str, int | float]:
        """Every numeric field; booleans as 0 or 1."""
        found: dict[str, int | float] = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, bool):
                found[item.name] = int(value)
            elif isinstance(value, int | float):
                found[item.name] = value
        return found


@dataclass(frozen=True, slots=True)
class Cost(Counted):
    """What an operation spent at the API."""

    requests: int = 0
    throttled: int = 0
    """Answers 429."""
    waited_seconds: float = 0.0
    """Time spent waiting for the rate limit."""
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.requests + other.requests,
            self.throttled + other.throttled,
            self.waited_seconds + other.waited_seconds,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class ExtractResult(Counted):
    """One full pass over an entity's list."""

    entity: str
    pages: int
    received: int
    inserted: int
    updated: int
    unchanged: int
    older: int
    """Rows that contradicted a newer stored one: marked, not written."""
    dropped: int
    """Rows not written because their object had an open mark."""
    quarantined: int
    unmet: int
    """Stored rows that the pass did not meet: marked, not deleted."""
    step_backs: int
    largest_page: int
    """Rows of the largest page: what the server is known to be able to return (A5)."""
    resumed: bool
    verified: bool
    """False where the list has no stable order, so that completeness rests on repeated passes."""
    cost: Cost

    def counts(self) -> dict[str, int | float]:
        return {**Counted.counts(self), **self.cost.counts()}


@dataclass(frozen=True, slots=True)
class HourResult(Counted):
    """What one read of the change feed did for the entries of one hour."""

    start: datetime
    recorded: int = 0
    """Entries that were new."""
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    marked: int = 0
    """Records that got or renewed a mark; one that several hours name counts in the last of them."""
    late_entries: int = 0
    """Entries that appeared behind the read position."""
    late_seconds: float = 0.0
    """Greatest age of one of them."""
    requests: int = 0
    """Requests for pages of entries from a moment in this hour on."""


@dataclass(frozen=True, slots=True)
class ChangesResult(Counted):
    """One read of the change feed."""

    pages: int
    received: int
    recorded: int
    """Entries that were new."""
    inserted: int
    updated: int
    deleted: int
    marked: int
    """Objects that got or renewed a mark."""
    parked: int
    """Entries of an unknown kind, kept in quarantine."""
    late_seconds: float
    """Greatest age of an entry that appeared behind the read position; near the overlap it is an alarm (A1)."""
    lateness: tuple[tuple[str, int], ...]
    """Entries that appeared behind the read position, by how late they were."""
    capacity: int
    """Entries of the largest feed page ever seen (A5)."""
    cut_at: int
    """Entries of the smallest page that was seen to be cut although it was below the capacity's safe floor; 0: none."""
    cursor: datetime
    """Every entry up to here is recorded."""
    windows_closed: int
    snapshot_required: str | None
    """Why a full extract is needed before the mirror can be trusted again."""
    hours: tuple[HourResult, ...]
    """Hours that got entries or were asked for, the oldest first."""
    cost: Cost

    def counts(self) -> dict[str, int | float]:
        return {**Counted.counts(self), **self.cost.counts()}


@dataclass(frozen=True, slots=True)
class SettleResult(Counted):
    """Looks at the marked objects of one entity."""

    entity: str
    marks: int
    """Open marks at the beginning."""
    settled: int
    inserted: int
    updated: int
    unchanged: int
    deleted: int
    quarantined: int
    waiting: int
    """Marks that are still open at the end."""
    failed: int
    """Looks that got no usable answer; their marks stay."""
    behind: int
    """Records that were older than the entry that named them: answers staler than the bound, or odd clocks (A2)."""
    list_requests: int
    single_requests: int
    stuck: int
    """Objects whose looks failed more often than the policy allows."""
    cost: Cost

    def counts(self) -> dict[str, int | float]:
        return {**Counted.counts(self), **self.cost.counts()}


@dataclass(frozen=True, slots=True)
class Comparison(Counted):
    """Rally against the warehouse, by id and every column value; `differences` = `repaired` + `left`."""

    entity: str
    compared: int
    equal: int
    missing: int
    """In Rally, not in the warehouse."""
    extra: int
    """In the warehouse, not in Rally."""
    stale: int
    """In both, with different content."""
    in_flight: int
    """Different, and no defect: the source changed them so lately that the mirror cannot have them yet."""
    repaired: int
    """Differences that healing removed; the target is 0."""
    left: int
    """Differences that are there at the end: all of them without healing."""
    verified: bool
    examples: tuple[tuple[str, str], ...]
    """(id, kind) of some differences, repaired ones among them."""
    cost: Cost

    @property
    def differences(self) -> int:
        return self.missing + self.extra + self.stale

    def counts(self) -> dict[str, int | float]:
        return {**Counted.counts(self), "differences": self.differences, **self.cost.counts()}


@dataclass(frozen=True, slots=True)
class ChangePoll(Counted):
    """One look at the feed, without recording anything."""

    entries: int
    """New entries seen."""
    windows: tuple[datetime, ...]
    """Starts of the hours that hold new entries."""
    latest: datetime | None
    truncated: bool
    """The page was full: there may be more."""
    cursor: datetime | None
    cost: Cost


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far the feed's log is complete."""

    base: datetime | None
    """From here on the log must be complete; what lies before is covered by the full extract."""
    through: datetime | None
    gaps: tuple[tuple[datetime, datetime], ...]
    snapshot_required: str | None

    @property
    def problem(self) -> str | None:
        """One line for a person, or None."""
        if self.snapshot_required:
            return f"a full extract is required: {self.snapshot_required}"
        if self.gaps:
            start, end = self.gaps[0]
            return (
                f"{len(self.gaps)} gap(s), the first from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
            )
        return None


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One mirror table as it stands."""

    table: str
    rows: int
    open_marks: int
    oldest_mark_seconds: float | None
    quarantined: int
    synced_at: datetime | None
    extract_open: bool


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """The mirror as it stands; ages are measured against the last server time known."""

    tables: tuple[TableStatus, ...]
    synced_through: datetime | None
    server_time: datetime | None
    lag_seconds: float | None
    snapshot_required: str | None
    reconcile_repairs: int | None
    changes_recorded: int


@dataclass(frozen=True, slots=True)
class ReplayResult(Counted):
    """Quarantined records given another look."""

    tried: int
    marks: int
    details: tuple[str, ...] = field(default=())
