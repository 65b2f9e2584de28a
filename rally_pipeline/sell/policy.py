"""How the queue is drained and what a look has to be like: the bounds of the correctness argument."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from rally_pipeline.settings import DeleteMode, Settings


@dataclass(frozen=True, slots=True)
class SellPolicy:
    """Bounds. None of them can lose anything: what a bound leaves undone, the next run does."""

    staleness_seconds: int = 30
    """How old an answer of the REST API can be (V); a look decides if it began so long after the hint."""
    delete_mode: DeleteMode = DeleteMode.HARD
    max_rounds: int = 20
    """Sessions that one run goes through at most."""
    max_runtime_seconds: float = 3_000.0
    """After this a run stops between two pages and leaves its session to the next one."""
    prefetch: bool = True
    """Ask for the next page while this one is committed and acknowledged. Should the commit fail, that page is
    not committed either, so it comes again in a later session like the failed one."""
    max_empty_pages: int = 20
    """Empty answers in a row after which the run ends as incomplete."""
    empty_pause_seconds: float = 0.5
    """Pause after an empty answer, doubled with each further one up to ten times as long."""
    max_unreadable_pages: int = 3
    """Answers in a row that are no page, after which the run fails."""
    lease_wait_seconds: float = 0.0
    """How long a second drain waits for the first."""
    look_batch: int = 100
    """Objects read in one request and committed together; the most that the list endpoints give."""
    absences_needed: int = 3
    """Runs in a row that must miss an object whose delete nobody announced: it may be hidden from the token."""
    max_failed_looks: int = 5
    """Looks in a row without an answer, after which the others are left to the next run."""
    overdue_seconds: float = 900.0
    """Age of an open mark that a check complains about."""
    guard_absolute: int = 100
    guard_share: float = 0.10
    """More rows that a full resend did not bring than both bounds allow need a person's word."""
    retention_days: int = 30
    """Landed items are forgotten so long after their acknowledgement, unless they hold the only copy."""

    @staticmethod
    def of(settings: Settings) -> SellPolicy:
        """The policy that the environment asks for."""
        return SellPolicy(
            staleness_seconds=settings.rally_staleness_seconds, delete_mode=settings.delete_mode
        )

    @property
    def settling(self) -> timedelta:
        """From the newest hint to the earliest look that counts: server times are whole seconds."""
        return timedelta(seconds=self.staleness_seconds + 1 if self.staleness_seconds else 0)
