"""Groups of entries with one time that may be larger than any page of the feed.

A page full of one time may be cut inside the group, and no `since` reaches what was cut off. What can be proven whole
is stepped over. For the rest, a full extract that began late enough after the group shows every record that the group
can name; until then the read does not move past it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rally_pipeline.rally.client import ChangeEntry, ChangePage, RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FeedState, whole_second
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.retention import GroupTooLarge
from rally_pipeline.warehouse.values import instant_text, parse_instant

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Warehouse

Ask = Callable[[datetime, Entity | None], ChangePage]
"""One page after a time: of everything, or of one entity with a larger limit."""

_STEPS = tuple(timedelta(microseconds=number) for number in (1, 999, 999_999))
"""Past a group that is shown again and again: first for servers that compare inclusively, then for those that compare
finer than they print, in milliseconds or in seconds. Each is tried only where the one before still showed the group."""


class ReadFrom(Exception):
    """The read goes on from `position`; `skipped`: what lies before is covered by full extracts, not by the log."""

    def __init__(self, position: datetime, *, skipped: bool = False) -> None:
        super().__init__(f"go on from {position}")
        self.position = instant_text(position)
        self.skipped = skipped


class LargeGroups:
    """Decides about pages that are full of one time, for one run over the feed."""

    def __init__(self, warehouse: Warehouse, client: RallyClient, policy: MirrorPolicy, ask: Ask) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._ask = ask
        self.proven: str | None = None
        """Time of the last group that may be stepped over although its page was full."""
        self.unread: str | None = None
        """Time of the last group of which some entries cannot be read; full extracts cover them."""
        self.trusts_extracts = True
        """False where the server's clock was set back, so that the times of earlier extracts mean nothing."""

    def read(self, page: ChangePage, position: datetime, last: str) -> list[ChangeEntry]:
        """The entries that may be stepped over, of a page full of the time `last`, asked for with `position`.

        A page that only repeats the group at `position` (inclusive or finer comparing servers do that) hides what
        comes later: then the next group is fetched as well, or the read could never pass this one.

        Raises:
            GroupTooLarge: entries may be hidden, and no full extract covers them yet.
            ReadFrom: only by going on from there what comes later can be seen.
        """
        earlier = before(position, self._policy.overlap)
        if self._ask(earlier, None).received > page.received:
            self.proven = last
            return page.entries
        found, reach, cut = page.entries, dict[Entity, str](), list[Entity]()
        for entity in Entity:
            part = self._ask(position, entity)
            beyond = [entry.changed_at for entry in part.entries if entry.changed_at > last]
            full = part.received >= page.received
            if full and not beyond and self._ask(earlier, entity).received <= part.received:
                cut.append(entity)
            if full and beyond:
                # The group at the end of a full page may be cut, so this entity is known up to the one before.
                reach[entity] = max((time for time in beyond if time < beyond[-1]), default=last)
            found = union(found, part.entries)
        repeated = last <= instant_text(position)
        until = last
        if cut:
            self._check_covered(last, cut, found)
            if repeated:
                self._check_way_past(position, last)
        elif repeated:
            until = min((entry.changed_at for entry in found if entry.changed_at > last), default=last)
            self._check_covered(until, [entity for entity, known in reach.items() if known < until], found)
        self.proven = until
        return [entry for entry in found if entry.changed_at <= until]

    def since(self, state: FeedState, at: str) -> datetime:
        """From when on a full extract covers the group. What is dated in the future was there when it was seen."""
        known = state.groups.get(at)
        if known is not None:
            return parse_instant(known)
        return whole_second(min(parse_instant(at), self._client.server_floor()) + self._policy.covering)

    def _check_covered(self, at: str, cut: Sequence[Entity], found: Sequence[ChangeEntry]) -> None:
        """Of the entities `cut`, entries at the time `at` may be hidden."""
        if not cut:
            return
        started, since = self._extracts(at)
        missing = [entity for entity in cut if entity not in started]
        if missing:
            names = " and ".join(entity.value for entity in missing)
            raise GroupTooLarge(
                f"more {names} changed at {at[:19].replace('T', ' ')} UTC than a feed page can hold, so some entries"
                " cannot be read",
                at=at,
                entities=missing,
                entries=[entry for entry in found if entry.changed_at <= at],
                since=since,
            )
        self.unread = at

    def _extracts(self, at: str) -> tuple[dict[Entity, datetime], datetime]:
        """When the last full extract of each entity began, of those that cover the group; and from when on one does."""
        now = self._client.server_ceiling()
        with self._warehouse.reading() as tx:
            since = self.since(FeedState.load(tx), at)
            passes = {entity: (tx.state(entity.stream) or {}).get("last_pass") for entity in Entity}
        began = {entity: parse_instant(done["started"]) for entity, done in passes.items() if done}
        covers = {entity: start for entity, start in began.items() if since <= start <= now}
        return (covers if self.trusts_extracts else {}), since

    def _check_way_past(self, position: datetime, last: str) -> None:
        """A group that may be stepped over hides what lies behind it: find a way to see that.

        Raises:
            ReadFrom, GroupTooLarge: as in `read`. Behind a group in the future nothing is looked for.
        """
        group = parse_instant(last)
        for step in _STEPS:
            if position - group < step and group <= datetime.max.replace(tzinfo=group.tzinfo) - step:
                raise ReadFrom(group + step)
        started, since = self._extracts(last)
        missing = [entity for entity in Entity if entity not in started]
        reason = f"the feed shows nothing behind {last[:19].replace('T', ' ')} UTC"
        if missing:
            raise GroupTooLarge(reason, at=last, entities=missing, entries=[], since=since)
        covered = before(min(started.values()), self._policy.overlap)
        if covered > position:
            raise ReadFrom(covered, skipped=True)


def before(moment: datetime, span: timedelta) -> datetime:
    """`moment` less `span`, or the beginning of time."""
    first = datetime.min.replace(tzinfo=moment.tzinfo)
    return moment - span if moment - first > span else first


def union(first: Sequence[ChangeEntry], second: Sequence[ChangeEntry]) -> list[ChangeEntry]:
    """The entries of both, each once, in the feed's order."""
    found = {
        (entry.id, entry.changed_at, entry.entity_id, entry.action): entry for entry in (*first, *second)
    }
    return sorted(found.values(), key=lambda entry: (entry.changed_at, entry.id))
