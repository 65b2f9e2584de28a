"""All Rally data of one tenant: records, their history, the change feed, and the stale view that a replica
has.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rally_pipeline.sandbox.clock import SandboxClock

from .collection import Collection
from .feed import ChangeFeed
from .field_index import FieldIndex, KeyOf, email_field, name_in_pipeline, single_field
from .instants import TICKS_PER_SECOND, ticks_of, ticks_of_span
from .records import Distortion, Record, Renderer
from .schema import ENTITIES, LINKS, EntitySpec
from .switches import RallySwitches

Action = Literal["inserted", "updated", "deleted"]
Aspect = Literal["lists", "records", "feed"]
_SPECIAL_KEYS: dict[tuple[str, str], KeyOf] = {
    ("contacts", "email"): email_field,
    ("deals", "name+pipelineId"): name_in_pipeline,
}


@dataclass(frozen=True, slots=True)
class Moment:
    """When a change happens: ticks of the wall clock, and ticks passed since the sandbox was made."""

    wall: int
    elapsed: int


@dataclass(frozen=True, slots=True)
class State:
    """One state that a record had: from `at` on (wall ticks) it looked like `body`; None: it was deleted."""

    at: int
    body: bytes | None


class Store:
    """Records by entity. Every change goes through `write` or `delete`, which keep indexes, history,
    replica and feed.
    """

    def __init__(
        self,
        tenant_id: str,
        switches: RallySwitches,
        clock: SandboxClock,
        dice: random.Random,
        *,
        keep_history: bool,
    ) -> None:
        self.tenant_id = tenant_id
        self.switches = switches
        self.clock = clock
        self.dice = dice
        self.feed = ChangeFeed(switches, random.Random(dice.getrandbits(64)))  # noqa: S311 - repeatable dice
        self.collections: dict[str, Collection] = {name: Collection() for name in ENTITIES}
        self.deleted: dict[str, dict[str, Record]] = {name: {} for name in ENTITIES}
        self.renderers = self._make_renderers()
        self.history: dict[tuple[str, str], list[State]] | None = {} if keep_history else None
        self._indexes: dict[tuple[str, str], FieldIndex] = {}
        self._replica: dict[str, Collection] | None = None
        self._journal: deque[tuple[int, str, str, Record | None]] = deque()

    # -- time ---------------------------------------------------------------------------------------------------

    def moment(self) -> Moment:
        """The present."""
        return Moment(ticks_of(self.clock.now()), ticks_of_span(self.clock.elapsed()))

    # -- changes ------------------------------------------------------------------------------------------------

    def load(self, entity: str, records: list[Record]) -> None:
        """Take in records of the past: no entries, no history beyond their present state."""
        self.collections[entity] = Collection([*self.collections[entity].by_id.values(), *records])
        for record in records:
            self._remember(entity, record.id, record.updated, record)

    def write(
        self,
        entity: str,
        record_id: str,
        fields: Mapping[str, Any],
        *,
        by: str | None,
        moment: Moment | None = None,
        touch: bool = True,
        entry: bool = True,
    ) -> Record:
        """Create the record, or replace its fields by these (all stored ones).

        `touch` raises `updatedAt`; `entry` makes a feed entry. A record that was deleted comes back as
        inserted.
        """
        spec, collection = ENTITIES[entity], self.collections[entity]
        moment = moment or self.moment()
        former = collection.by_id.get(record_id)
        share = self.switches.frozen_updated_at_share
        if former is not None and share and self.dice.random() < share:
            touch = False
        created = moment.wall if former is None else former.created
        updated = moment.wall if former is None or touch else former.updated
        record = Record.of(spec, record_id, created, updated, fields)
        collection.put(record)
        self.deleted[entity].pop(record_id, None)
        self._index(entity, record_id, former, record)
        self._journalise(entity, record_id, record, moment)
        self._remember(entity, record_id, moment.wall, record)
        if entry:
            action: Action = "inserted" if former is None else "updated"
            self.feed.record(spec.singular, record_id, action, moment.wall, moment.elapsed, by)
        return record

    def delete(self, entity: str, record_id: str, *, by: str | None, moment: Moment | None = None) -> bool:
        """Remove the record; False if it is not there."""
        record = self.collections[entity].take(record_id)
        if record is None:
            return False
        moment = moment or self.moment()
        self.deleted[entity][record_id] = record
        self._index(entity, record_id, record, None)
        self._journalise(entity, record_id, None, moment)
        self._remember(entity, record_id, moment.wall, None)
        singular = ENTITIES[entity].singular
        self.feed.record(singular, record_id, "deleted", moment.wall, moment.elapsed, by)
        return True

    def set_switches(self, switches: RallySwitches) -> None:
        """Put other switches in force from now on."""
        self.switches = self.feed.switches = switches
        former, self.renderers = self.renderers, self._make_renderers()
        for name, renderer in self.renderers.items():
            renderer.take_over(former[name])
        if not switches.replica_lag_seconds:
            self._replica = None
            self._journal.clear()
        elif self._replica is None:
            self._replica = {name: collection.copy() for name, collection in self.collections.items()}

    def distort(self, entity: str, record_id: str, distortion: Distortion | None) -> None:
        """Let answers misrepresent one record from now on; None: show it as it is again."""
        self.renderers[entity].distort(record_id, distortion)

    # -- reading ------------------------------------------------------------------------------------------------

    def fields(self, entity: str, record_id: str) -> dict[str, Any] | None:
        """The stored fields of a present record."""
        record = self.collections[entity].by_id.get(record_id)
        return None if record is None else record.fields(ENTITIES[entity])

    def body(self, entity: str, record: Record) -> bytes:
        """The record as answers show it."""
        return self.renderers[entity].render(record)

    def find(self, entity: str, name: str, key: str) -> list[str]:
        """Ids of records by the text of a field, oldest first.

        `name` is a field, `email` of contacts being folded to lower case, or `name+pipelineId` for deals
        with a key made by `deal_key`. The first call for a field reads all records once.
        """
        slot = (entity, name)
        if slot not in self._indexes:
            spec = ENTITIES[entity]
            index = FieldIndex(_SPECIAL_KEYS.get(slot) or single_field(name))
            for record in self.collections[entity].view("createdAt"):
                index.add(record.id, record.fields(spec))
            self._indexes[slot] = index
        return self._indexes[slot].find(key)

    def referring(self, target: str, record_id: str) -> Iterator[tuple[str, str, str]]:
        """`(entity, id, link field)` of the records that refer to a record of the entity `target`."""
        for link, linked in LINKS.items():
            if linked == target:
                for name, spec in ENTITIES.items():
                    if link in spec.by_name:
                        for found in self.find(name, link, record_id):
                            yield name, found, link

    def reading(self, aspect: Aspect, moment: Moment) -> tuple[Mapping[str, Collection], int]:
        """The collections that this request is answered from, and until when (elapsed ticks) its feed has
        seen.
        """
        switches = self.switches
        lag = switches.replica_lag_seconds
        if not lag or aspect not in switches.replica_serves:
            return self.collections, moment.elapsed
        if switches.replica_share < 1.0 and self.dice.random() >= switches.replica_share:
            return self.collections, moment.elapsed
        seen_until = moment.elapsed - round(lag * TICKS_PER_SECOND)
        return self._replica_at(seen_until), seen_until

    # -- inside -------------------------------------------------------------------------------------------------

    def _replica_at(self, seen_until: int) -> Mapping[str, Collection]:
        replica = self._replica
        if replica is None:
            raise LookupError("there is no replica without replica_lag_seconds")
        while self._journal and self._journal[0][0] <= seen_until:
            _, entity, record_id, record = self._journal.popleft()
            if record is None:
                replica[entity].take(record_id)
            else:
                replica[entity].put(record)
        return replica

    def _journalise(self, entity: str, record_id: str, record: Record | None, moment: Moment) -> None:
        if self._replica is not None:
            self._journal.append((moment.elapsed, entity, record_id, record))

    def _index(self, entity: str, record_id: str, former: Record | None, record: Record | None) -> None:
        spec: EntitySpec = ENTITIES[entity]
        for (owner, _), index in self._indexes.items():
            if owner == entity:
                if former is not None:
                    index.remove(record_id, former.fields(spec))
                if record is not None:
                    index.add(record_id, record.fields(spec))

    def _remember(self, entity: str, record_id: str, at: int, record: Record | None) -> None:
        if self.history is not None:
            body = None if record is None else self.body(entity, record)
            self.history.setdefault((entity, record_id), []).append(State(at, body))

    def _make_renderers(self) -> dict[str, Renderer]:
        return {name: Renderer(spec, self.tenant_id, self.switches) for name, spec in ENTITIES.items()}
