"""What tests do to the simulated Rally, in process or as control verbs: change records, switch, inject,
look.
"""

from __future__ import annotations

import inspect
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from rally_pipeline.sandbox.api import ControlError
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.limiter import Limiter

from .errors import RallyError
from .files import FileExchange
from .instants import TICKS_PER_SECOND, instant_of, parse_instant
from .keys import ApiKeys, Scope
from .mutations import KINDS, Mutator
from .records import Distortion
from .schema import ENTITIES
from .store import Store
from .switches import RallySwitches, changed_switches
from .tenant import Tenant
from .writes import Writer

DEFAULT_WEIGHTS = {"insert": 3.0, "update": 5.0, "delete": 2.0}


class Steering(ABC):
    """The test interfaces of `RallyApi`. Entities are named in the plural; wrong use is a `ControlError`, a
    change that the product would refuse a `RallyError`. Every method is also a control verb of its name
    (those that return records give JSON).
    """

    clock: SandboxClock
    lock: threading.RLock
    limiter: Limiter
    tenant: Tenant
    keys: ApiKeys
    store: Store
    writer: Writer
    mutator: Mutator
    files: FileExchange

    def control(self, verb: str, body: dict[str, Any]) -> object:
        """Call a verb with the members of `body` as its arguments."""
        method = self._verbs().get(verb)
        if method is None:
            raise ControlError(
                f"Rally has no control verb '{verb}': choose one of {', '.join(sorted(self._verbs()))}"
            )
        try:
            inspect.signature(method).bind(**body)
        except TypeError as error:
            raise ControlError(f"control verb '{verb}': {error}") from None
        try:
            return method(**body)
        except RallyError as error:
            raise ControlError(f"control verb '{verb}': {'; '.join(error.messages())}") from None

    # -- changes ------------------------------------------------------------------------------------------------

    def mutate(
        self,
        n: int = 1,
        kinds: Sequence[str] | Mapping[str, float] | None = None,
        entities: Sequence[str] | None = None,
        over_seconds: float = 0.0,
        tie_share: float = 0.3,
    ) -> dict[str, int]:
        """Make `n` random changes and return how many of each, by `entity.kind`.

        `kinds` are names out of insert, update, delete, revive, hostile, or weights by name. On a virtual clock
        `over_seconds` of sandbox time pass meanwhile; `tie_share` of the changes share the moment of the
        one before.
        """
        weights = _read_weights(kinds)
        chosen = tuple(_entity(name) for name in entities or tuple(ENTITIES))
        with self.lock:
            self.mutator.live(self.store.moment())
            done = self.mutator.mutate(
                n, weights, entities=chosen, over_seconds=over_seconds, tie_share=tie_share
            )
            return dict(sorted(done.items()))

    def create(self, entity: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Create a record and return it as the API shows it."""
        with self.lock:
            record = self.writer.create(_entity(entity), dict(fields), by=self.mutator.author())
            return _decode(self.store.body(entity, record))

    def update(self, entity: str, id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change these fields of a record and return it."""
        with self.lock:
            author = self.mutator.author()
            record = self.writer.update(_entity(entity), id, dict(fields), merge=True, by=author)
            return _decode(self.store.body(entity, record))

    def delete(self, entity: str, id: str) -> None:
        """Delete a record."""
        with self.lock:
            self.writer.delete(_entity(entity), id, by=self.mutator.author())

    def revive(self, entity: str, id: str) -> dict[str, Any]:
        """Bring a deleted record back under the same id and return it."""
        with self.lock:
            record = self.writer.revive(_entity(entity), id, by=self.mutator.author())
            return _decode(self.store.body(entity, record))

    def change_silently(self, entity: str, id: str, fields: Mapping[str, Any]) -> None:
        """Change stored fields without a feed entry and without touching `updatedAt`."""
        with self.lock:
            present = self.store.fields(_entity(entity), id)
            if present is None:
                raise self.writer.missing(entity, id)
            self.store.write(entity, id, {**present, **fields}, by=None, touch=False, entry=False)

    # -- switches and misrepresentation -------------------------------------------------------------------------

    def switch(self, **switches: Any) -> dict[str, Any]:
        """Change switches and return all of them."""
        with self.lock:
            self.mutator.live(self.store.moment())
            self.apply_switches(changed_switches(self.store.switches, switches))
            return msgspec.structs.asdict(self.store.switches)

    @abstractmethod
    def apply_switches(self, switches: RallySwitches) -> None:
        """Put switches in force."""

    def distort(
        self,
        entity: str,
        id: str,
        set: Mapping[str, Any] | None = None,
        raw: Mapping[str, str] | None = None,
        drop: Sequence[str] = (),
        append: str = "",
    ) -> None:
        """Let answers misrepresent a record: members set to JSON values, set to literal JSON text (`NaN`,
        `1e999`), dropped, or literal text appended inside the object (such as a key twice).
        """
        with self.lock:
            distortion = Distortion(dict(set or {}), dict(raw or {}), list(drop), append)
            self.store.distort(_entity(entity), id, distortion)

    def restore(self, entity: str, id: str) -> None:
        """Show a distorted record as it is again."""
        with self.lock:
            self.store.distort(_entity(entity), id, None)

    # -- the feed -----------------------------------------------------------------------------------------------

    def entry(
        self,
        entity_type: str,
        entity_id: str,
        action: str = "updated",
        changed_at: str | None = None,
        visible_in: float = 0.0,
        changed_by: str | None = None,
        id: int | None = None,
    ) -> None:
        """Add any entry to the feed: unknown types and actions, times in the past or the future, ids used
        before.
        """
        with self.lock:
            moment = self.store.moment()
            changed = moment.wall if changed_at is None else parse_instant(changed_at)[0]
            visible = moment.elapsed + round(visible_in * TICKS_PER_SECOND)
            self.store.feed.inject(
                entity_type, entity_id, action, changed, moment.elapsed, visible, changed_by, id
            )

    def restart_feed_ids(self, first: int = 1) -> None:
        """Let feed ids start over, as after a restored backup."""
        with self.lock:
            self.store.feed.restart_ids(first)

    def clear_feed(self) -> None:
        """Forget all entries."""
        with self.lock:
            self.store.feed.clear()

    def entries(self) -> list[dict[str, Any]]:
        """All visible entries in the order of `changedAt`, with seven fraction digits."""
        with self.lock:
            self.store.feed.reveal(self.store.moment().elapsed)
            return [
                {
                    "id": entry.id,
                    "entityType": entry.entity_type,
                    "entityId": entry.entity_id,
                    "action": entry.action,
                    "changedAt": instant_of(entry.changed).isoformat(),
                    "changedBy": entry.changed_by,
                }
                for entry in self.store.feed.entries()
            ]

    # -- keys and rate ------------------------------------------------------------------------------------------

    def key(self, scope: Scope, active: bool | None = None, expires_in: float | None = None) -> str:
        """The secret of the sandbox's key with that scope; revoke it, restore it or let it expire on the
        way.
        """
        with self.lock:
            if active is not None:
                self.keys.set_active(scope, active)
            if expires_in is not None:
                self.keys.expire(scope, expires_in)
            return self.keys.secret(scope)

    def spend(self, requests: int) -> None:
        """Let other integrations use up part of the present rate window."""
        with self.lock:
            self.limiter.spend(requests, self.clock.now())

    # -- looking ------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """The number of present records of each entity."""
        with self.lock:
            return {name: len(collection) for name, collection in self.store.collections.items()}

    def ids(self, entity: str) -> list[str]:
        """The ids of all present records, sorted."""
        with self.lock:
            return sorted(self.store.collections[_entity(entity)].by_id)

    def record(self, entity: str, id: str) -> dict[str, Any] | None:
        """A record as the API shows it, or None."""
        with self.lock:
            found = self.store.collections[_entity(entity)].by_id.get(id)
            return None if found is None else _decode(self.store.body(entity, found))

    def records(self, entity: str) -> Iterator[dict[str, Any]]:
        """All present records of an entity by id, decoded; numbers with a fraction are `Decimal`."""
        with self.lock:
            present = list(self.store.collections[_entity(entity)].view("id"))
        return (_decode(self.store.body(entity, record)) for record in present)

    def history(self, entity: str, id: str) -> list[dict[str, Any] | None]:
        """Every state that the record had, oldest first; None stands for a time when it was deleted.

        Raises `ControlError` unless the sandbox was made with `keep_history`.
        """
        with self.lock:
            if self.store.history is None:
                raise ControlError("the sandbox keeps no history: make it with keep_history=True")
            states = self.store.history.get((_entity(entity), id), [])
            return [None if state.body is None else _decode(state.body) for state in states]

    def known_ids(self, entity: str) -> list[str]:
        """The ids of all records that ever were, present or deleted, sorted."""
        with self.lock:
            return sorted({*self.store.collections[_entity(entity)].by_id, *self.store.deleted[entity]})

    def _verbs(self) -> dict[str, Callable[..., object]]:
        def listed(entity: str) -> list[dict[str, Any]]:
            return list(self.records(entity))

        methods: tuple[Callable[..., object], ...] = (
            self.mutate,
            self.create,
            self.update,
            self.delete,
            self.revive,
            self.change_silently,
            self.switch,
            self.distort,
            self.restore,
            self.entry,
            self.restart_feed_ids,
            self.clear_feed,
            self.entries,
            self.key,
            self.spend,
            self.counts,
            self.ids,
            self.record,
            self.history,
            self.known_ids,
        )
        return {
            **{method.__name__: method for method in methods},
            "records": listed,
            "files": self.files.switch,
        }


def _entity(name: str) -> str:
    if name not in ENTITIES:
        raise ControlError(f"there is no entity '{name}': choose one of {', '.join(ENTITIES)}")
    return name


def _read_weights(kinds: Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    weights = DEFAULT_WEIGHTS
    if isinstance(kinds, Mapping):
        weights = dict(kinds)
    elif kinds is not None:
        weights = dict.fromkeys(kinds, 1.0)
    unknown = sorted(set(weights) - set(KINDS))
    if unknown or not weights:
        raise ControlError(f"kinds of changes are {', '.join(KINDS)}; not {', '.join(unknown) or 'none'}")
    return weights


def _decode(body: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(body, parse_float=Decimal)
    return decoded
