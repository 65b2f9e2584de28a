"""How the mirror reads: the bounds of the correctness argument, and page sizes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from rally_pipeline.settings import DeleteMode, Settings


@dataclass(frozen=True, slots=True)
class MirrorPolicy:
    """Bounds and sizes.

    The bounds are assumptions about the server, each watched by a monitor: an entry becomes visible at most
    `L` after its `changedAt`, an answer is at most `staleness_seconds` (V) old, and
    `overlap_seconds` (W) covers both plus the coarseness of timestamps.
    """

    overlap_seconds: int = 300
    staleness_seconds: int = 30
    delete_mode: DeleteMode = DeleteMode.HARD
    page_limit: int = 1000
    """Rows asked for in a list page; the server may give fewer."""
    feed_limit: int = 1000
    """Entries asked for in a feed page; the documented default."""
    page_overlap: int = 2
    """Rows by which list pages overlap (k)."""
    feed_capacity_floor: int = 100
    """Entries that a feed page can certainly hold (C)."""
    single_batch: int = 25
    """Single looks committed together."""
    single_threads: int = 4
    """Single looks in flight at once; 1 reads them in order, for a replay."""
    list_look_minimum: int = 3
    """Fewest open marks for which a list page is tried before single reads."""
    guard_absolute: int = 100
    guard_share: float = 0.10
    """More suspected deletes than both bounds allow are not acted on without a person's word."""
    max_attempts: int = 8
    """Failed looks at one object after which its mark is reported as stuck (it is still retried)."""
    retention_probe_seconds: int = 3_600
    """A cursor older than this is checked against the oldest entry that the feed still has."""
    unordered_agreement: int = 3
    """Passes in a row without a new id that end the reading of a list in random order."""
    prefetch: bool = True
    """Ask for the next pages while others are being committed."""
    commit_pages: int = 8
    """List pages committed together, at most: where they come faster than they are committed one by one."""

    @staticmethod
    def of(settings: Settings) -> MirrorPolicy:
        """The policy that the environment asks for."""
        return MirrorPolicy(
            overlap_seconds=settings.rally_feed_overlap_seconds,
            staleness_seconds=settings.rally_staleness_seconds,
            delete_mode=settings.delete_mode,
        )

    @property
    def overlap(self) -> timedelta:
        return timedelta(seconds=self.overlap_seconds)

    @property
    def covering(self) -> timedelta:
        """How long after a change a full extract has to begin to show it for certain: L + g + V is within W."""
        return self.overlap + timedelta(seconds=1)

    @property
    def longest_demand(self) -> timedelta:
        """How far ahead of the server's clock a full extract is demanded at most."""
        return self.covering + timedelta(seconds=4)

    @property
    def staleness(self) -> timedelta:
        return timedelta(seconds=self.staleness_seconds)
