"""What each operation reports: frozen records of plain numbers, for metadata, checks and the terminal."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum


class StoppedReason(StrEnum):
    """Why a drain ended."""

    DRAINED = "drained"
    """The queue answered 204, and every page handed out was committed."""
    NOTHING_NEW = "nothing_new"
    """Further sessions brought only what is stored, but a page may still be missing."""
    ROUNDS = "rounds"
    """As many sessions as one run may use."""
    RUNTIME = "runtime"
    """The time for one run is used up."""
    EMPTY_PAGES = "empty_pages"
    """The queue kept answering with empty pages."""
    SESSION_LOST = "session_lost"
    """The last session that the run may use was lost."""

    @property
    def is_complete(self) -> bool:
        """Whether the mirror is known to hold everything that was pending when the run began."""
        return self is StoppedReason.DRAINED


class Counted:
    """Numbers of a result under their field names."""

    def counts(self) -> dict[str, int | float]:
        """Every numeric field; booleans as 0 or 1."""
        found: dict[str, int | float] = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, Counted):
                found |= value.counts()
            elif isinstance(value, bool):
                found[item.name] = int(value)
            elif isinstance(value, int | float):
                found[item.name] = value
        return found


@dataclass(frozen=True, slots=True)
class Cost(Counted):
    """What an operation spent at the API."""

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    waited_seconds: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Sum up."""
        return Cost(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))


@dataclass(slots=True)
class PageTally(Counted):
    """What became of the items of one page, or of all pages of a run."""

    items: int = 0
    """Items received, repeats included."""
    landed: int = 0
    """Items that were not landed before in this state."""
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    """Rows that a delete took away."""
    ignored: int = 0
    """Items older than the stored row."""
    suspected: int = 0
    """Contradictions, left to a look."""
    raw_only: int = 0
    """Items without a table, kept as they came."""
    quarantined: int = 0
    failed_objects: int = 0
    keyless: int = 0
    """Unreadable items without an acknowledgement key: they will come again."""

    @property
    def has_news(self) -> bool:
        """Whether anything was not stored before."""
        return bool(self.landed or self.inserted or self.updated or self.deleted)

    def add(self, other: PageTally) -> None:
        """Sum up."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))


@dataclass(frozen=True, slots=True)
class DrainResult(Counted):
    """One run over the queue."""

    stopped_reason: StoppedReason
    sessions: int
    """Sessions started by this run."""
    resumed: bool
    """Whether a session that an earlier run left open was continued."""
    pages: int
    empty_pages: int
    unreadable_pages: int
    acks: int
    """Acknowledgements that the server confirmed."""
    acked: int
    """Keys in them."""
    acks_pending: int
    """Committed pages whose acknowledgement is not confirmed: their items will come again."""
    tally: PageTally
    synced_through: datetime | None
    """Server time before which every change is in the warehouse or marked; None after an incomplete run."""
    unresent: int
    """Rows that a full resend did not bring; they are marked unless a guard holds them back."""
    sweep_held: bool
    cost: Cost

    @property
    def is_complete(self) -> bool:
        return self.stopped_reason.is_complete


@dataclass(frozen=True, slots=True)
class SettleResult(Counted):
    """Looks at the marked objects of one type."""

    entity: str
    marks: int = 0
    settled: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    quarantined: int = 0
    waiting: int = 0
    """Marks still open."""
    failed: int = 0
    """Looks without a usable answer."""
    scope_missing: bool = False
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table as it stands."""

    table: str
    rows: int
    open_marks: int
    failed_objects: int
    oldest_mark_seconds: float | None
    quarantined: int
    synced_at: datetime | None


@dataclass(frozen=True, slots=True)
class SellStatus:
    """The mirror as it stands; ages are measured against the last server time known."""

    tables: tuple[TableStatus, ...]
    synced_through: datetime | None
    lag_seconds: float | None
    checked_at: datetime | None
    """Server time at the end of the last drain."""
    stopped_reason: str | None
    acks_pending: int
    raw_items: int
    """Items of types or shapes without a table, kept as they came."""
    unplaced_marks: int
    """Open marks of types without a table."""
    quarantined: int
    device_uuid: str | None
    sweep_held: int
    """Rows that a full resend did not bring and that wait for a person's word."""
