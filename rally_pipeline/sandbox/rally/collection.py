"""The records of one entity with sorted views of them, kept in order while records change."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Literal

from .records import Record

SortField = Literal["id", "createdAt", "updatedAt"]
SortKey = Callable[[Record], Any]
Bound = tuple[int, bool]
"""Least `updated` ticks of a filtered view, and whether records never updated since their creation are left
out.
"""

SORT_KEYS: dict[SortField, SortKey] = {
    "id": lambda record: record.id,
    "createdAt": lambda record: (record.created, record.id),
    "updatedAt": lambda record: (record.updated, record.id),
}
MAX_FILTERED_VIEWS = 6


class SortedView:
    """Records in one order; inserting and removing cost a bisection and a shift of pointers."""

    __slots__ = ("bound", "key", "records")

    def __init__(self, records: Iterable[Record], key: SortKey, bound: Bound | None = None) -> None:
        self.key = key
        self.bound = bound
        self.records = sorted((record for record in records if self.admits(record)), key=key)

    def admits(self, record: Record) -> bool:
        """Whether the record belongs to this view."""
        if self.bound is None:
            return True
        least, updates_only = self.bound
        return record.updated >= least and not (updates_only and record.updated == record.created)

    def add(self, record: Record) -> None:
        if self.admits(record):
            insort(self.records, record, key=self.key)

    def remove(self, record: Record) -> None:
        if self.admits(record):
            at = bisect_left(self.records, self.key(record), key=self.key)
            if self.records[at] is not record:
                raise LookupError(f"view lost record {record.id}")
            del self.records[at]


class Collection:
    """The present records of one entity, by id and in the orders that were asked for."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.by_id: dict[str, Record] = {record.id: record for record in records}
        self._views: dict[SortField, SortedView] = {}
        self._filtered: OrderedDict[tuple[SortField, Bound], SortedView] = OrderedDict()

    def __len__(self) -> int:
        return len(self.by_id)

    def copy(self) -> Collection:
        """Another collection with the same records (which are shared, they never change)."""
        return Collection(self.by_id.values())

    def put(self, record: Record) -> Record | None:
        """Store the record in the place of the one with its id, which is given back."""
        former = self.by_id.get(record.id)
        self.by_id[record.id] = record
        for view in self._all_views():
            if former is not None:
                view.remove(former)
            view.add(record)
        return former

    def take(self, record_id: str) -> Record | None:
        """Remove and give back the record, if it is there."""
        record = self.by_id.pop(record_id, None)
        if record is not None:
            for view in self._all_views():
                view.remove(record)
        return record

    def view(self, sort_field: SortField, bound: Bound | None = None) -> list[Record]:
        """The records in ascending order, those within the bound only; the list must not be changed."""
        if bound is None:
            if sort_field not in self._views:
                self._views[sort_field] = SortedView(self.by_id.values(), SORT_KEYS[sort_field])
            return self._views[sort_field].records
        slot = (sort_field, bound)
        if slot not in self._filtered:
            recent = self._updated_from(bound[0])
            self._filtered[slot] = SortedView(recent, SORT_KEYS[sort_field], bound)
            if len(self._filtered) > MAX_FILTERED_VIEWS:
                self._filtered.popitem(last=False)
        self._filtered.move_to_end(slot)
        return self._filtered[slot].records

    def _updated_from(self, least: int) -> list[Record]:
        by_update = self.view("updatedAt")
        return by_update[bisect_left(by_update, (least, ""), key=SORT_KEYS["updatedAt"]) :]

    def _all_views(self) -> list[SortedView]:
        return [*self._views.values(), *self._filtered.values()]
