"""The change feed: entries sorted by `changedAt`, with everything the documentation leaves open.

Entries are columns, not objects, so that a million of them stay small; a page costs one bisection and its
own length. An entry waits outside the columns until it is visible; its id is given by then or at the change
(switch `feed_ids`).
"""

from __future__ import annotations

import heapq
import random
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from .instants import TICKS_PER_SECOND, first_after, text_of, unit_of
from .switches import RallySwitches

_encode = msgspec.json.Encoder().encode
_Name = TypeVar("_Name")


@dataclass(frozen=True, slots=True)
class Entry:
    """One change as the feed shows it; `changed` in ticks."""

    id: int
    entity_type: str
    entity_id: str
    action: str
    changed: int
    changed_by: str | None


@dataclass(slots=True)
class _Pending:
    """An entry that is not visible yet; `id` None: the id is given when it becomes so."""

    id: int | None
    entity_type: str
    entity_id: str
    action: str
    changed: int
    changed_by: str | None


class _Names(Generic[_Name]):
    """Small numbers for names that repeat, at most 256 of them."""

    def __init__(self) -> None:
        self._numbers: dict[_Name, int] = {}
        self.names: list[_Name] = []

    def number(self, name: _Name) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


class ChangeFeed:
    """Records changes and answers which are visible after an instant."""

    def __init__(self, switches: RallySwitches, dice: random.Random) -> None:
        self.switches = switches
        self._dice = dice
        self._next_id = 1
        self._waiting: list[tuple[int, int, _Pending]] = []
        self._waited = 0
        self._latest: dict[tuple[str, str], tuple[int, int]] = {}
        self._clear_columns()

    def __len__(self) -> int:
        return len(self._changed)

    @property
    def waiting(self) -> int:
        """Entries that are not visible yet."""
        return len(self._waiting)

    def record(
        self,
        entity_type: str,
        entity_id: str,
        action: str,
        changed: int,
        elapsed: int,
        changed_by: str | None,
    ) -> None:
        """Note a change of the present; `changed` and `elapsed` are ticks of the wall clock and of the time
        passed.

        The switches decide when it becomes visible, or whether it ever does.
        """
        switches, dice = self.switches, self._dice
        if switches.no_entry_share and dice.random() < switches.no_entry_share:
            return
        visible = elapsed + round(switches.feed_delay_seconds * TICKS_PER_SECOND)
        if switches.late_seconds and dice.random() < switches.late_share:
            visible += round(dice.random() * switches.late_seconds * TICKS_PER_SECOND)
        if switches.ahead_seconds and dice.random() < switches.ahead_share:
            changed += round(dice.random() * switches.ahead_seconds * TICKS_PER_SECOND)
        self._hold(entity_type, entity_id, action, changed, visible, changed_by)
        if switches.unknown_entry_share and dice.random() < switches.unknown_entry_share:
            unknown = dice.choice((("contact", "merged"), ("company", "restored"), ("quote", "inserted")))
            self._hold(unknown[0], entity_id, unknown[1], changed, visible, changed_by)
        self.reveal(elapsed)

    def inject(
        self,
        entity_type: str,
        entity_id: str,
        action: str,
        changed: int,
        elapsed: int,
        visible: int,
        changed_by: str | None,
        entry_id: int | None = None,
    ) -> None:
        """Add any entry, to be visible at `visible` (ticks of the time passed, as is the present, `elapsed`)."""
        self._hold(entity_type, entity_id, action, changed, visible, changed_by, entry_id)
        self.reveal(elapsed)

    def _hold(
        self,
        entity_type: str,
        entity_id: str,
        action: str,
        changed: int,
        visible: int,
        changed_by: str | None,
        entry_id: int | None = None,
    ) -> None:
        if entry_id is None and self.switches.feed_ids == "change":
            entry_id = self._take_id()
        pending = _Pending(entry_id, entity_type, entity_id, action, changed, changed_by)
        self._waited += 1
        heapq.heappush(self._waiting, (visible, self._waited, pending))

    def load(
        self, changed: Sequence[int], entity_ids: Sequence[str], kinds: Sequence[tuple[str, str, str | None]]
    ) -> None:
        """Add past changes, all visible from the start, given as columns in any order; a kind is `(entity type,
        action, author)`.
        """
        for at in sorted(range(len(changed)), key=changed.__getitem__):
            entity_type, action, changed_by = kinds[at]
            self._append(_Pending(None, entity_type, entity_ids[at], action, changed[at], changed_by), 0)

    def restart_ids(self, first: int = 1) -> None:
        """Let ids start over, as after the source was restored from a backup."""
        self._next_id = first

    def clear(self) -> None:
        """Forget all entries, also those not visible yet."""
        self._waiting.clear()
        self._latest.clear()
        self._clear_columns()

    def reveal(self, elapsed: int) -> None:
        """Make visible what is due by now."""
        while self._waiting and self._waiting[0][0] <= elapsed:
            visible, _, pending = heapq.heappop(self._waiting)
            self._append(pending, visible)

    def horizon(self, now: int) -> int | None:
        """Entries before this instant are no longer kept; None: all are."""
        seconds = self.switches.retention_seconds
        return None if seconds is None else now - round(seconds * TICKS_PER_SECOND)

    def after(
        self, since: int, limit: int, types: frozenset[str], now: int, seen_until: int
    ) -> list[tuple[Entry, str]]:
        """At most `limit` visible entries after `since` in order, each with its `changedAt` as text.

        `types` limits the entity types (empty: all); entries that became visible later than `seen_until`
        (ticks of the time passed) are left out, as a stale replica would.
        """
        unit = unit_of(self.switches.feed_compare_digits)
        least = first_after(since, unit, inclusive=self.switches.feed_since == "inclusive")
        horizon = self.horizon(now)
        start = bisect_left(self._changed, least if horizon is None else max(least, horizon))
        places = self._places(start, limit, types, seen_until, unit)
        digits = self.switches.feed_digits
        return [(self._entry(at), text_of(self._changed[at], digits)) for at in places]

    def entries(self) -> Iterator[Entry]:
        """All visible entries in order."""
        return (self._entry(at) for at in range(len(self._changed)))

    def _places(self, start: int, limit: int, types: frozenset[str], seen_until: int, unit: int) -> list[int]:
        if self.switches.feed_ties == "commit":
            places = self._scan(start, limit, types, seen_until)
        else:
            places = self._scan(start, limit, types, seen_until, unit)
            places = self._reorder_ties(places, unit)[:limit]
        if self.switches.feed_duplicate_share:
            places = [copy for at in places for copy in [at] * self._copies()][:limit]
        if self.switches.feed_page_order == "shuffled":
            self._dice.shuffle(places)
        return places

    def _scan(
        self, start: int, limit: int, types: frozenset[str], seen_until: int, whole_ties_of: int = 0
    ) -> list[int]:
        """Places of the first `limit` entries that count; with a unit, on to the end of the last tie group."""
        found: list[int] = []
        changed, visible, kinds, names = self._changed, self._visible, self._kinds, self._kind_names.names
        wanted = {number for number, name in enumerate(names) if not types or name[0] in types}
        for at in range(start, len(changed)):
            if len(found) >= limit and not (
                whole_ties_of and changed[at] // whole_ties_of == changed[found[-1]] // whole_ties_of
            ):
                break
            if visible[at] <= seen_until and kinds[at] in wanted:
                found.append(at)
        return found

    def _reorder_ties(self, places: list[int], unit: int) -> list[int]:
        ordered: list[int] = []
        start = 0
        while start < len(places):
            end = start
            tie = self._changed[places[start]] // unit
            while end < len(places) and self._changed[places[end]] // unit == tie:
                end += 1
            group = places[start:end]
            if self.switches.feed_ties == "reversed":
                group.reverse()
            else:
                self._dice.shuffle(group)
            ordered += group
            start = end
        return ordered

    def _copies(self) -> int:
        return 2 if self._dice.random() < self.switches.feed_duplicate_share else 1

    def _entry(self, at: int) -> Entry:
        entity_type, action = self._kind_names.names[self._kinds[at]]
        changed_by = self._actor_names.names[self._actors[at]]
        return Entry(self._ids[at], entity_type, self._entities[at], action, self._changed[at], changed_by)

    def _take_id(self) -> int:
        taken = self._next_id
        gap = self.switches.feed_id_gap
        self._next_id += 1 + (self._dice.randint(0, gap) if gap else 0)
        return taken

    def _append(self, pending: _Pending, visible: int) -> None:
        action = pending.action
        if self.switches.merge_entries:
            former = self._latest.get((pending.entity_type, pending.entity_id))
            if former is not None and former[0] > pending.changed:
                return
            if former is not None:
                action = self._drop_former(former, pending.action)
        entry_id = self._take_id() if pending.id is None else pending.id
        if self.switches.merge_entries:
            self._latest[pending.entity_type, pending.entity_id] = (pending.changed, entry_id)
        changed = self._changed
        at = (
            len(changed)
            if not changed or pending.changed >= changed[-1]
            else bisect_right(changed, pending.changed)
        )
        changed.insert(at, pending.changed)
        self._ids.insert(at, entry_id)
        self._visible.insert(at, visible)
        self._kinds.insert(at, self._kind_names.number((pending.entity_type, action)))
        self._actors.insert(at, self._actor_names.number(pending.changed_by))
        self._entities.insert(at, pending.entity_id)

    def _drop_former(self, former: tuple[int, int], action: str) -> str:
        """Remove a record's former entry; the action that the merged entry shows."""
        changed, entry_id = former
        at = bisect_left(self._changed, changed)
        while self._ids[at] != entry_id:
            at += 1
        former_action = self._entry(at).action
        for column in (self._changed, self._ids, self._visible, self._kinds, self._actors, self._entities):
            column.pop(at)
        return "inserted" if (former_action, action) == ("inserted", "updated") else action

    def _clear_columns(self) -> None:
        self._changed: array[int] = array("q")
        self._ids: array[int] = array("q")
        self._visible: array[int] = array("q")
        self._kinds: array[int] = array("B")
        self._actors: array[int] = array("B")
        self._entities: list[str] = []
        self._kind_names: _Names[tuple[str, str]] = _Names()
        self._actor_names: _Names[str | None] = _Names()


def entry_text(entry: Entry, changed_at: str) -> bytes:
    """The JSON of one entry."""
    return b'{"id":%d,"entityType":%b,"entityId":%b,"action":%b,"changedAt":"%b","changedBy":%b}' % (
        entry.id,
        _encode(entry.entity_type),
        _encode(entry.entity_id),
        _encode(entry.action),
        changed_at.encode(),
        _encode(entry.changed_by),
    )
