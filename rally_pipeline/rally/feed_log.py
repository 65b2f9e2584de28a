"""Writing feed entries: each is recorded once, marks its object, or is parked where nobody knows what it means."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING

from sqlalchemy import select

from rally_pipeline.rally.client import ChangeEntry, ChangePage, named_by
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FEED_STREAM, FeedState
from rally_pipeline.rally.marks import Hint, add_marks
from rally_pipeline.rally.results import HourResult
from rally_pipeline.rally.tables import changes
from rally_pipeline.warehouse.tables import quarantine
from rally_pipeline.warehouse.values import instant_text, json_text, parse_instant

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction

_COLUMNS = ("id", "changed_at", "entity_type", "entity_id", "action", "changed_by", "recorded_at")
_ACTIONS = ("inserted", "updated", "deleted")
LATENESS_SECONDS = (1, 5, 15, 30, 60, 120, 300, 900)


@dataclass(slots=True)
class HourTally:
    """What one read did for the entries of one hour."""

    recorded: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    late_entries: int = 0
    late_seconds: float = 0.0
    requests: int = 0

    def result(self, start: datetime) -> HourResult:
        """The same for those who asked for the read."""
        return HourResult(
            start=start,
            recorded=self.recorded,
            inserted=self.actions["inserted"],
            updated=self.actions["updated"],
            deleted=self.actions["deleted"],
            marked=self.marked,
            late_entries=self.late_entries,
            late_seconds=self.late_seconds,
            requests=self.requests,
        )


@dataclass(slots=True)
class FeedTally:
    """Counters of one read."""

    pages: int = 0
    received: int = 0
    recorded: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    parked: int = 0
    late_seconds: float = 0.0
    lateness: Counter[int] = field(default_factory=Counter)
    """Late entries by the bound (an index of `LATENESS_SECONDS`) that they stayed below."""
    cut_at: int = 0
    windows_closed: int = 0
    snapshot_required: str | None = None
    touched: set[str] = field(default_factory=set)
    """Hours (canonical text) that got new entries."""
    hours: defaultdict[str, HourTally] = field(default_factory=lambda: defaultdict(HourTally))
    """By hour (canonical text) of `changedAt`; a request counts for the hour from which on it asked."""

    def lateness_table(self) -> tuple[tuple[str, int], ...]:
        """Bounds of lateness that occurred, ascending, with the number of entries."""
        names = [f"up to {bound} s" for bound in LATENESS_SECONDS] + [f"over {LATENESS_SECONDS[-1]} s"]
        return tuple((names[place], self.lateness[place]) for place in sorted(self.lateness))

    def hour_results(self) -> tuple[HourResult, ...]:
        """The hours, the oldest first."""
        return tuple(self.hours[hour].result(parse_instant(f"{hour}:00:00Z")) for hour in sorted(self.hours))


class FeedLog:
    """Writes entries inside the caller's transactions and counts what it wrote."""

    def __init__(self, tally: FeedTally) -> None:
        self.tally = tally
        self._before: ChangePage | None = None

    def insert(self, tx: Transaction, kept: list[ChangeEntry], answered: datetime) -> list[ChangeEntry]:
        """Insert what is not known yet; returns it."""
        recorded_at = instant_text(answered)
        rows = {
            (entry.id, entry.changed_at, entry.entity_type, entry.entity_id, entry.action): entry
            for entry in kept
        }
        values = [(*key, entry.changed_by, recorded_at) for key, entry in rows.items()]
        new = tx.insert_new(changes, _COLUMNS, values)
        return [rows[key] for key in new]

    def mark(self, tx: Transaction, fresh: list[ChangeEntry], answered: datetime) -> None:
        tally = self.tally
        hints: dict[Entity, list[Hint]] = {}
        for entry in fresh:
            entity = Entity.of_singular(entry.entity_type)
            if entity is None or entry.action not in _ACTIONS:
                self._park_entry(tx, entry)
            if entity is not None:
                hints.setdefault(entity, []).append(Hint(entry.entity_id, entry.action, entry.changed_at))
            tally.actions[entry.action] += 1
            tally.touched.add(entry.changed_at[:13])
            hour = tally.hours[entry.changed_at[:13]]
            hour.recorded += 1
            hour.actions[entry.action] += 1
        tally.recorded += len(fresh)
        for entity, listed in hints.items():
            tally.marked += add_marks(tx, entity, listed, seen=answered)
            # A record that several entries name counts once, in the hour of the last of them.
            for changed_at in {hint.entity_id: hint.changed_at or "" for hint in listed}.values():
                tally.hours[changed_at[:13]].marked += 1

    def note_lateness(self, state: FeedState, fresh: list[ChangeEntry]) -> None:
        """The monitor of `L`: how far behind the last closed read an entry is dated that it did not see."""
        if state.last_read is None or not fresh:
            return
        read = parse_instant(state.last_read)
        for entry in fresh:
            if entry.changed_at < state.last_read:
                late = (read - parse_instant(entry.changed_at)).total_seconds()
                self.tally.late_seconds = max(self.tally.late_seconds, late)
                self.tally.lateness[bisect_left(LATENESS_SECONDS, late)] += 1
                hour = self.tally.hours[entry.changed_at[:13]]
                hour.late_entries += 1
                hour.late_seconds = max(hour.late_seconds, late)

    def note_cut(self, page: ChangePage, *, floor: int, overlap: timedelta) -> None:
        """The monitor of `C`: a page below the floor must have held all that was there.

        What this page brings beyond the one before, although it was visible long before that one was answered, was
        cut off there.
        """
        before, self._before = self._before, page
        if before is None or not before.entries or before.received >= floor:
            return
        last, seen = before.entries[-1].changed_at, {entry.id for entry in before.entries}
        visible = instant_text(before.answered - overlap)
        if any(last <= entry.changed_at < visible and entry.id not in seen for entry in page.entries):
            self.tally.cut_at = min(self.tally.cut_at or before.received, before.received)

    def _park_entry(self, tx: Transaction, entry: ChangeEntry) -> None:
        """An entry of an unknown kind is kept for a person; an object of a known type is looked at all the same."""
        what = f"unknown entity type '{entry.entity_type:.40}' or action '{entry.action:.40}'"
        tx.quarantine(FEED_STREAM, f"entry:{entry.id}", what, json_text(asdict(entry)))
        self.tally.parked += 1

    def park(self, tx: Transaction, unreadable: Sequence[tuple[bytes, str]], answered: datetime) -> None:
        """Keep unreadable entries for a person, each once; an object that one names is looked at all the same."""
        kept = {
            f"hash:{blake2b(raw, digest_size=16).hexdigest()}": (raw, reason) for raw, reason in unreadable
        }
        known = select(quarantine.c.key).where(
            quarantine.c.source == FEED_STREAM, quarantine.c.key.in_(list(kept))
        )
        for key in kept.keys() - {row[0] for row in (tx.rows(known) if kept else [])}:
            raw, reason = kept[key]
            tx.quarantine(FEED_STREAM, key, reason, raw)
            self.tally.parked += 1
            name = named_by(raw)
            entity = Entity.of_singular(name[0]) if name is not None else None
            if name is not None and entity is not None:
                self.tally.marked += add_marks(tx, entity, [Hint(name[1], "updated")], seen=answered)
