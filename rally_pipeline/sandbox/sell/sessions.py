"""The Sync service: what each device has acknowledged, open sessions, and the pages that they hand out."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from rally_pipeline.sandbox.sell.errors import RefusalError
from rally_pipeline.sandbox.sell.options import SellOptions
from rally_pipeline.sandbox.sell.world import Reference, Thing, Version, World


@dataclass(frozen=True, slots=True)
class Injected:
    """An item that a test put into the queue as it stands; it comes until its key is acknowledged."""

    number: int
    body: bytes
    ack_key: str | None


@dataclass
class Device:
    """What one consumer is known to hold."""

    uuid: str
    born: int
    """Revision of the account when the device was first seen: earlier deletes are never announced to it."""
    memory: dict[Reference, int] = field(default_factory=dict)
    """Acknowledged revision of each object."""
    handed: dict[str, tuple[Reference, int]] = field(default_factory=dict)
    """The state that each key stood for when it was last handed out."""
    injected: set[int] = field(default_factory=set)
    """Numbers of injected items that are acknowledged."""


Entry = tuple[Thing, Version | None] | Injected
"""What a session has queued; the version is fixed only where items are fixed at the start."""


@dataclass
class Session:
    """One synchronization session."""

    id: str
    device: Device
    entries: deque[Entry]
    opened: datetime
    used: datetime
    fetches: int = 0
    drained: bool = False


@dataclass(frozen=True, slots=True)
class PendingAck:
    """An acknowledgement on its way through the background."""

    due: datetime
    device: Device
    keys: tuple[str, ...]


class SyncService:
    """Start, fetch and acknowledge."""

    def __init__(self, world: World, options: SellOptions, dice: random.Random) -> None:
        self._world = world
        self._options = options
        self._dice = dice
        self.injected: list[Injected] = []
        self._under_way: list[PendingAck] = []
        self.devices: dict[str, Device] = {}
        self.sessions: dict[str, Session] = {}
        self.failing: dict[Reference, int | None] = {}
        """Objects that cannot be loaded, with the number of times left (None: for ever)."""
        self.unknown_keys: list[str] = []
        """Acknowledged keys that were never handed out to that device."""
        self.acks: list[int] = []
        """Number of keys of each accepted acknowledgement."""

    def inject(self, body: bytes, ack_key: str | None) -> Injected:
        """Put an item into every device's queue until it is acknowledged."""
        item = Injected(len(self.injected) + 1, body, ack_key)
        self.injected.append(item)
        return item

    def redeliver(self, thing: Thing, *, back: int = 1) -> Injected:
        """Put an older state of an object into the queue, as a late session would."""
        version = thing.versions[-1 - back]
        return self.inject(item_body(self._world, thing, version, "updated"), thing.ack_key(version))

    def active(self, now: datetime) -> list[Session]:
        """Sessions that count towards the limit."""
        idle = timedelta(seconds=self._options.session_idle_seconds)
        return [
            s
            for s in self.sessions.values()
            if not s.drained and not self._is_lost(s, now) and now - s.used < idle
        ]

    def start(self, uuid: str, now: datetime) -> Session | None:
        """A new session, or None where nothing is pending.

        Raises:
            RefusalError: too many sessions are open.
        """
        self.settle(now)
        device = self.devices.setdefault(uuid, Device(uuid, self._world.revision))
        entries = self.pending(device)
        if not entries:
            return None
        if len(self.active(now)) >= self._options.session_limit:
            raise RefusalError(
                self._options.session_limit_status,
                f"There are already {self._options.session_limit} active synchronization sessions",
            )
        if self._options.shuffle:
            self._dice.shuffle(entries)
        queued: deque[Entry] = deque()
        fixed = self._options.fixed_at == "start"
        for entry in entries:
            queued.append((entry, entry.current if fixed else None) if isinstance(entry, Thing) else entry)
        for _ in range(round(len(entries) * self._options.duplicate_share)):
            queued.insert(self._dice.randrange(len(queued) + 1), self._dice.choice(queued))
        for thing, version in self._older_states(entries):
            queued.insert(self._dice.randrange(len(queued) + 1), (thing, version))
        session = Session(str(UUID(int=self._dice.getrandbits(128), version=4)), device, queued, now, now)
        self.sessions[session.id] = session
        return session

    def _older_states(self, entries: Sequence[Thing | Injected]) -> list[tuple[Thing, Version]]:
        """For the configured share of the entries, a state that is not the present one."""
        if not self._options.older_share:
            return []
        found: list[tuple[Thing, Version]] = []
        for entry in entries:
            older = [v for v in entry.versions[:-1] if v.data is not None] if isinstance(entry, Thing) else []
            if isinstance(entry, Thing) and older and self._dice.random() < self._options.older_share:
                found.append((entry, self._dice.choice(older[-2:])))
        return found

    def pending(self, device: Device) -> list[Thing | Injected]:
        """Everything whose present state the device has not acknowledged."""
        found: list[Thing | Injected] = []
        memory, announce = device.memory, self._options.delete_unknown
        for reference, thing in self._world.things.items():
            acknowledged = memory.get(reference)
            if acknowledged == thing.versions[-1].number:
                continue
            was_seen = acknowledged is not None or (announce and thing.versions[0].number > device.born)
            if thing.is_live or was_seen:
                found.append(thing)
        return found + [item for item in self.injected if item.number not in device.injected]

    def fetch(self, session_id: str, uuid: str, now: datetime) -> tuple[list[bytes], list[Thing], int] | None:
        """The next page: items, objects that could not be loaded, number of entries left. None: drained.

        Raises:
            RefusalError: the session is unknown, of another device, or gone.
        """
        self.settle(now)
        session = self.sessions.get(session_id)
        if session is None or session.device.uuid != uuid or self._is_lost(session, now):
            raise RefusalError(
                self._options.lost_session_status, "The synchronization session does not exist"
            )
        session.used = now
        session.fetches += 1
        if self._options.grows:
            self._grow(session)
        if self._options.only_empty:
            return [], [], len(session.entries)
        if not session.entries:
            session.drained = True
            return None
        if self._options.empty_every and session.fetches % self._options.empty_every == 0:
            return [], [], len(session.entries)
        count = min(self._options.page_size, len(session.entries))
        return *self._hand_out(session, [session.entries.popleft() for _ in range(count)]), len(
            session.entries
        )

    def acknowledge(self, uuid: str, keys: Sequence[str], now: datetime) -> None:
        """Take an acknowledgement; it works after the configured delay.

        Raises:
            RefusalError: more keys than the limit.
        """
        limit = self._options.ack_limit
        if limit is not None and len(keys) > limit:
            raise RefusalError(
                self._options.ack_limit_status, f"At most {limit} ack_keys can be acknowledged at once"
            )
        self.acks.append(len(keys))
        device = self.devices.setdefault(uuid, Device(uuid, self._world.revision))
        due = now + timedelta(seconds=self._options.ack_delay_seconds)
        self._under_way.append(PendingAck(due, device, tuple(keys)))
        self.settle(now)

    def settle(self, now: datetime) -> None:
        """Let the acknowledgements whose delay is over take effect."""
        due = [ack for ack in self._under_way if ack.due <= now]
        if due:
            self._under_way = [ack for ack in self._under_way if ack.due > now]
        for ack in due:
            self._apply(ack.device, ack.keys)

    def _apply(self, device: Device, keys: Iterable[str]) -> None:
        for key in keys:
            injected = [item.number for item in self.injected if item.ack_key == key] if self.injected else []
            device.injected.update(injected)
            state = device.handed.get(key)
            if state is not None:
                reference, number = state
                device.memory[reference] = max(number, device.memory.get(reference, 0))
            elif not injected:
                self.unknown_keys.append(key)

    def _hand_out(self, session: Session, entries: Iterable[Entry]) -> tuple[list[bytes], list[Thing]]:
        items: list[bytes] = []
        failed: list[Thing] = []
        device = session.device
        for entry in entries:
            if isinstance(entry, Injected):
                items.append(entry.body)
                continue
            thing, fixed = entry
            version = fixed or thing.current
            if self._fails(thing):
                failed.append(thing)
                if not self._options.redeliver_failed:
                    device.memory[thing.reference] = version.number
                continue
            event = "updated" if thing.reference in device.memory else "created"
            event = "deleted" if version.data is None else event
            device.handed[thing.ack_key(version)] = (thing.reference, version.number)
            items.append(item_body(self._world, thing, version, event))
        return items, failed

    def _fails(self, thing: Thing) -> bool:
        if thing.reference not in self.failing:
            return False
        left = self.failing[thing.reference]
        if left is not None:
            if left <= 1:
                del self.failing[thing.reference]
            else:
                self.failing[thing.reference] = left - 1
        return True

    def _grow(self, session: Session) -> None:
        queued = {entry[0].reference for entry in session.entries if not isinstance(entry, Injected)}
        handed = set(session.device.handed.values())
        for thing in self.pending(session.device):
            if isinstance(thing, Thing):
                state = (thing.reference, thing.current.number)
                if thing.reference not in queued and state not in handed:
                    session.entries.append((thing, None))

    def _is_lost(self, session: Session, now: datetime) -> bool:
        age, most = self._options.session_seconds, self._options.session_fetches
        too_old = age is not None and (now - session.opened).total_seconds() >= age
        return too_old or (most is not None and session.fetches >= most)


def item_body(world: World, thing: Thing, version: Version, event: str) -> bytes:
    """One item of a page as JSON."""
    if version.data is None:
        revision, data = 0, delete_data(thing)
    else:
        revision, data = version.number, world.shown(thing, version.data)
    return b'{"data":%b,"meta":{"type":"%b","sync":{"event_type":"%b","ack_key":"%b","revision":%d}}}' % (
        data,
        thing.kind.encode(),
        event.encode(),
        thing.ack_key(version).encode(),
        revision,
    )


def delete_data(thing: Thing) -> bytes:
    """What a delete says: the identity only."""
    if thing.kind == "associated_contact":
        deal, _, contact = thing.id.partition(":")
        return b'{"deal_id":%b,"contact_id":%b}' % (deal.encode(), contact.encode())
    return b'{"id":%b}' % thing.id.encode()
