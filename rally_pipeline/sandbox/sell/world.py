"""The simulated account: every object with all its states, and the changes that tests ask for."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from rally_pipeline.sandbox.api import ControlError
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.sell.samples import SHARES, UNKNOWN_TYPE, Sampler, instant

FIRST_REVISION = 1_900_000_000
_encode = msgspec.json.Encoder(decimal_format="number").encode
Reference = tuple[str, str]
"""Type and id of an object."""


@dataclass(frozen=True, slots=True)
class Version:
    """One state of an object: `data` is its JSON, None while deleted; `number`, ever rising, its revision."""

    number: int
    at: datetime
    data: bytes | None


@dataclass(slots=True)
class Thing:
    """One object. `serial` is the middle number of its acknowledgement keys, which is not its id."""

    kind: str
    id: str
    serial: int
    versions: list[Version] = field(default_factory=list)

    @property
    def reference(self) -> Reference:
        return self.kind, self.id

    @property
    def current(self) -> Version:
        return self.versions[-1]

    @property
    def is_live(self) -> bool:
        return self.versions[-1].data is not None

    def as_of(self, moment: datetime) -> bytes | None:
        """The state at `moment`: None before the birth and while deleted."""
        for version in reversed(self.versions):
            if version.at <= moment:
                return version.data
        return None

    def ack_key(self, version: Version) -> str:
        """The key of a state: type in capitals, serial, revision (0 for a delete)."""
        name = "".join(part.capitalize() for part in self.kind.split("_"))
        return f"{name}-{self.serial}-{version.number if version.data is not None else 0}"


def object_id(kind: str, record: Mapping[str, Any]) -> str:
    """The id by which tests name an object; an associated contact is known by its deal and its contact."""
    if kind == "associated_contact":
        return f"{record['deal_id']}:{record['contact_id']}"
    return str(record["id"])


class World:
    """All objects of the account."""

    def __init__(self, dice: random.Random, clock: SandboxClock, *, records: int, unknown: int) -> None:
        self._dice = dice
        self._clock = clock
        self._revision = FIRST_REVISION
        self._serial = 700_000
        self.things: dict[Reference, Thing] = {}
        self.sampler = Sampler(dice, clock.now())
        self._born = clock.now() - timedelta(days=1)
        for kind, record in self.sampler.configuration():
            self._add(kind, record, self._born)
        rest = max(0, records - len(self.things))
        for kind, share in SHARES.items():
            self._fill(kind, round(rest * share))
        self._fill("note", records - len(self.things) if records > len(self.things) else 0)
        self._fill(UNKNOWN_TYPE, unknown)

    @property
    def revision(self) -> int:
        """The last revision given out."""
        return self._revision

    def thing(self, kind: str, identity: object) -> Thing:
        """Raises `ControlError` where there is no such object."""
        found = self.things.get((kind, str(identity)))
        if found is None:
            raise ControlError(f"there is no {kind} {identity} in the simulated Sell account")
        return found

    def shown(self, thing: Thing, data: bytes) -> bytes:
        """A state as answers show it: a pipeline carries its present stages."""
        if thing.kind != "pipeline":
            return data
        owner = int(thing.id)
        stages = [stage.current.data or b"" for stage in self.live("stage")]
        inside = [stage for stage in stages if msgspec.json.decode(stage)["pipeline_id"] == owner]
        items = b",".join(b'{"data":%b,"meta":{"type":"stage"}}' % stage for stage in inside)
        return data[:-1] + b',"stages":{"items":[' + items + b"]}}"

    def live(self, kind: str | None = None) -> Iterator[Thing]:
        """Present objects, of one type or all."""
        return (thing for thing in self.things.values() if thing.is_live and kind in (None, thing.kind))

    def create(self, kind: str, changes: Mapping[str, Any]) -> Thing:
        """A new object, or a deleted one that comes back under its id."""
        _, record = self.sampler.make(kind)
        now = instant(self._clock.now())
        record |= {"created_at": now, "updated_at": now, **changes}
        if kind == "associated_contact" and not changes:
            if record["deal_id"] is None:
                record["deal_id"] = int(self.create("deal", {}).id)
            if record["contact_id"] is None or self._is_taken(kind, record):
                record["contact_id"] = int(
                    self.create("contact", {}).id
                )  # a new contact has no association yet
        reference = (kind, object_id(kind, record))
        known = self.things.get(reference)
        if known is None:
            return self._add(kind, record, self._clock.now())
        if known.is_live:
            raise ControlError(f"{kind} {known.id} exists already")
        self._append(known, _encode(record))
        return known

    def update(self, kind: str, identity: object, changes: Mapping[str, Any] | None = None) -> Thing:
        """Edit an object, at random if without `changes`; `updated_at` moves unless it is given."""
        thing = self.thing(kind, identity)
        if thing.current.data is None:
            raise ControlError(f"{kind} {identity} is deleted: revive it first")
        record = msgspec.json.decode(thing.current.data)
        record |= {"updated_at": instant(self._clock.now())}
        record |= self.sampler.changes(kind) if changes is None else changes
        self._append(thing, _encode(record))
        return thing

    def delete(self, kind: str, identity: object) -> Thing:
        """Delete an object."""
        thing = self.thing(kind, identity)
        if thing.is_live:
            self._append(thing, None)
        return thing

    def revive(self, kind: str, identity: object) -> Thing:
        """Undo a delete: the object comes back as it was, with a new `updated_at`."""
        thing = self.thing(kind, identity)
        if not thing.is_live:
            last = next(version.data for version in reversed(thing.versions) if version.data is not None)
            record = msgspec.json.decode(last) | {"updated_at": instant(self._clock.now())}
            self._append(thing, _encode(record))
        return thing

    def mutate(self, changes: int) -> dict[str, int]:
        """Random creates, updates, deletes and revivals; says how many of each."""
        done = {"created": 0, "updated": 0, "deleted": 0, "revived": 0}
        kinds = list(SHARES)
        for _ in range(changes):
            kind = self._dice.choices(kinds, weights=list(SHARES.values()))[0]
            roll = self._dice.random()
            gone = [thing for thing in self.things.values() if not thing.is_live] if roll >= 0.95 else []
            present = list(self.live(kind)) if roll >= 0.25 else []
            if roll < 0.25 or not (gone or present):
                self.create(kind, {})
                done["created"] += 1
            elif gone:
                thing = self._dice.choice(gone)
                self.revive(*thing.reference)
                done["revived"] += 1
            elif roll < 0.85:
                self.update(*self._dice.choice(present).reference)
                done["updated"] += 1
            else:
                self.delete(*self._dice.choice(present).reference)
                done["deleted"] += 1
        return done

    def _fill(self, kind: str, count: int) -> None:
        made = 0
        for _ in range(count * 20):
            if made == count:
                return
            _, record = self.sampler.make(kind)
            if not self._is_taken(kind, record) and "None" not in object_id(kind, record):
                self._add(kind, record, self._born)
                made += 1

    def _is_taken(self, kind: str, record: Mapping[str, Any]) -> bool:
        return (kind, object_id(kind, record)) in self.things

    def _add(self, kind: str, record: Mapping[str, Any], at: datetime) -> Thing:
        self._serial += self._dice.randrange(1, 4)
        thing = Thing(kind, object_id(kind, record), self._serial)
        self._revision += self._dice.randrange(1, 4)
        thing.versions.append(Version(self._revision, at, _encode(record)))
        self.things[thing.reference] = thing
        return thing

    def _append(self, thing: Thing, data: bytes | None) -> None:
        self._revision += self._dice.randrange(1, 4)
        thing.versions.append(Version(self._revision, self._clock.now(), data))
