"""How files are imported and exported: bounds, waits and switches."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from rally_pipeline.rally.files.chunks import ChunkLimits
from rally_pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class ImportPolicy:
    """How a file is checked, sent, and what follows an unclear answer."""

    limits: ChunkLimits = field(default_factory=ChunkLimits)
    overlap_seconds: int = 300
    """W of the correctness argument: how far a read-back looks behind the moment of sending."""
    staleness_seconds: int = 30
    """V: how old an answer of a list can be."""
    quiet_seconds: int = 60
    """After this long without an answer Rally is not working on an upload any more; two read-backs that far
    apart must show the same."""
    most_readbacks: int = 10
    most_rounds: int = 4
    """How often rows that were missing after an unclear answer are sent again before a person must look."""
    most_throttles: int = 5
    encoding: str | None = None
    """Of CSV files without byte-order mark; None is UTF-8."""
    check_links: bool = True
    """Refuse rows whose company, contact or deal Rally does not have, instead of letting Rally refuse
    them."""
    guard_formulas: bool = True
    """Undo apostrophes that guard against formulas on the way in; put them into the rejects file."""

    @staticmethod
    def of(settings: Settings) -> ImportPolicy:
        """The policy that the environment asks for."""
        return ImportPolicy(
            overlap_seconds=settings.rally_feed_overlap_seconds,
            staleness_seconds=settings.rally_staleness_seconds,
            quiet_seconds=max(60, settings.rally_staleness_seconds),
        )

    @property
    def overlap(self) -> timedelta:
        return timedelta(seconds=self.overlap_seconds)
