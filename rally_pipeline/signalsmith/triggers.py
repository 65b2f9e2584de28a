"""When a change upstream starts a sync: only where rows really changed, once it has been quiet for a while.

Pure: what has changed is looked up elsewhere and handed in. The position is a hint; the warehouse and the remote
know the truth, so a lost position costs at most one sync that changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta

VERSION = 1
LONGEST_DELAY = 5
"""A sync whose upstream never comes to rest starts after this many debounce times all the same."""


@dataclass(frozen=True, slots=True)
class Sight:
    """An upstream asset as a tick sees it.

    Attributes:
        event: the newest materialisation (its position in Dagster's event log); 0 where there is none.
        at: when it was.
        content: a mark that differs when rows of the table have changed; "" where only the event tells.
        changed: whether the events since the last sight say that rows changed; only asked without `content`.
    """

    event: int
    at: datetime
    content: str = ""
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered of one sync. Times are Unix seconds; 0 where nothing is pending."""

    events: Mapping[str, int] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    pending_since: float = 0.0
    pending_until: float = 0.0
    """When the latest change was seen to have happened."""

    @property
    def is_pending(self) -> bool:
        return self.pending_since > 0

    @staticmethod
    def begin(sights: Mapping[str, Sight], last_run: datetime | None) -> Watch:
        """The watch of a sync without one: what changed after its last run is pending, all else is given."""
        later = [
            sight.at.timestamp() for sight in sights.values() if last_run is not None and sight.at > last_run
        ]
        return Watch()._taken(sights, later)

    def see(self, sights: Mapping[str, Sight]) -> Watch:
        """The watch after looking at every upstream; one that is new among them is taken as given."""
        changes = [
            sight.at.timestamp()
            for name, sight in sights.items()
            if name in self.events and self._differs(name, sight)
        ]
        return self._taken(sights, changes)

    def _taken(self, sights: Mapping[str, Sight], changes: list[float]) -> Watch:
        since, until = self.pending_since, self.pending_until
        if changes:
            since, until = since or min(changes), max(until, *changes)
        return Watch(
            {name: sight.event for name, sight in sights.items()},
            {name: sight.content for name, sight in sights.items() if sight.content},
            since,
            until,
        )

    def due(self, now: datetime, debounce_seconds: float) -> bool:
        """Whether the upstream has been quiet for long enough, or busy for too long."""
        if not self.is_pending:
            return False
        moment = now.timestamp()
        quiet = moment - self.pending_until >= debounce_seconds
        return quiet or moment - self.pending_since >= LONGEST_DELAY * debounce_seconds

    def started(self) -> Watch:
        """After a run was asked for."""
        return replace(self, pending_since=0.0, pending_until=0.0)

    @property
    def changed_at(self) -> datetime:
        """The latest change that is pending."""
        return datetime.fromtimestamp(self.pending_until, UTC)

    def waits_until(self, debounce_seconds: float) -> datetime:
        """When it is due if nothing more changes."""
        return self.changed_at + timedelta(seconds=debounce_seconds)

    def _differs(self, name: str, sight: Sight) -> bool:
        if sight.event == self.events[name]:
            return False
        if sight.content and name in self.contents:
            return sight.content != self.contents[name]
        return sight.changed


@dataclass(frozen=True, slots=True)
class Position:
    """The sensor's cursor: one watch per sync."""

    watches: Mapping[str, Watch] = field(default_factory=dict)

    @staticmethod
    def read(text: str | None) -> Position:
        """The stored position; an empty one where the text is missing, damaged or of another version."""
        try:
            stored = json.loads(text or "{}")
            if stored.get("version") != VERSION:
                return Position()
            watches = {
                str(sync_id): Watch(
                    {str(key): int(value) for key, value in watch["events"].items()},
                    {str(key): str(value) for key, value in watch["contents"].items()},
                    float(watch["pending_since"]),
                    float(watch["pending_until"]),
                )
                for sync_id, watch in stored["watches"].items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return Position()
        return Position(watches)

    def text(self) -> str:
        """For Dagster's storage."""
        watches = {sync_id: asdict(watch) for sync_id, watch in self.watches.items()}
        return json.dumps({"version": VERSION, "watches": watches})


def rows_changed(numbers: Mapping[str, float]) -> bool:
    """Whether counts of a materialisation say that rows changed; True where they say nothing about it."""
    verbs = (
        "inserted",
        "updated",
        "deleted",
        "upserted",
        "repaired",
        "changed",
        "rows_changed",
        "run_recorded",
    )
    found = [value for key, value in numbers.items() if key.rsplit("/", 1)[-1] in verbs]
    return not found or sum(found) > 0
