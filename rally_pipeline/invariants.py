"""What must hold at every commit, by the names of the correctness design, and the error that stops a run.

Each check stays on in production. It is cheap (no query per row, at most one indexed query a page), it looks at
something else than the code that it watches, and it is made before the transaction is committed or the request is
sent, so that nothing wrong becomes visible. A violation is a defect of this package, never a user's mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Invariant:
    """A promise.

    Attributes:
        promise: what holds, in a few words.
        checked_in: functions that check it; the name stands in their source.
        command: shows the state of what the promise is about.
    """

    promise: str
    checked_in: tuple[str, ...]
    command: str


_STATUS = "rally-pipeline status"
_VERIFY = "rally-pipeline verify"
_RALLY = "rally_pipeline.rally"
_FILES = "rally_pipeline.rally.files"
_SELL = "rally_pipeline.sell"
_TRIGGERS = "rally_pipeline.signalsmith"

INVARIANTS: Mapping[str, Invariant] = {
    # Rally: a full pass beside live changes
    "SN1": Invariant(
        "a list row is not written over an object that waits for its look",
        (f"{_RALLY}.invariants.OpenMarks.check",),
        _VERIFY,
    ),
    "SN2": Invariant(
        "every page of a pass is anchored to an earlier one, and only a page below the cap ends it",
        (f"{_RALLY}.invariants.PassCoverage.check",),
        _VERIFY,
    ),
    "SN3": Invariant(
        "a row disappears only by a look that began after its hint had settled",
        (f"{_RALLY}.deletes.remove",),
        _VERIFY,
    ),
    "SN4": Invariant(
        "a page follows the last stored page of its own pass",
        (f"{_RALLY}.invariants.check_resumable",),
        _STATUS,
    ),
    "SN5": Invariant(
        "the feed's cursor is fixed before a pass, no later than the overlap before its first request",
        (f"{_RALLY}.invariants.check_base",),
        _STATUS,
    ),
    # Rally: the change feed
    "FD1": Invariant(
        "the cursor steps only over whole groups, and ends at the read's start minus the overlap",
        (f"{_RALLY}.invariants.check_step", f"{_RALLY}.invariants.check_cursor"),
        _STATUS,
    ),
    "FD2": Invariant(
        "the marks of a feed page are committed with the position behind it",
        (f"{_RALLY}.invariants.check_marked",),
        _STATUS,
    ),
    "FD3": Invariant(
        "a mark is cleared only by a look that began after its newest hint had settled",
        (f"{_RALLY}.invariants.check_evidence",),
        _VERIFY,
    ),
    "FD4": Invariant(
        "where a mark is cleared, the table holds what the look saw",
        (f"{_RALLY}.invariants.check_settled",),
        _VERIFY,
    ),
    "FD5": Invariant(
        "every feed page that does not end the read moves the position on",
        (f"{_RALLY}.invariants.check_step",),
        _STATUS,
    ),
    # Sell: the queue
    "SQ1": Invariant(
        "only keys of landed items of a committed page are acknowledged",
        (f"{_SELL}.apply.PageApplier.apply", f"{_SELL}.drain.QueueDrain._acknowledge"),
        _STATUS,
    ),
    "SQ2": Invariant(
        "a page is stored under the device that this warehouse belongs to",
        (f"{_SELL}.drain.QueueDrain._check_lineage",),
        _STATUS,
    ),
    "SQ3": Invariant(
        "an item that contradicts what is stored is left to a look",
        (f"{_SELL}.apply.PageApplier._check_verdicts",),
        _VERIFY,
    ),
    "SQ4": Invariant(
        "failed objects are recorded with their page",
        (f"{_SELL}.apply.PageApplier._check_failed",),
        _STATUS,
    ),
    "SQ5": Invariant(
        "a page that was landed before changes nothing when it is applied again",
        (f"{_SELL}.apply.PageApplier._check_repeat",),
        _STATUS,
    ),
    # SignalSmith: triggers
    "RE1": Invariant(
        "a run belongs to a request only by a definite answer about a run of its sync",
        (f"{_TRIGGERS}.intents.Intents.write", f"{_TRIGGERS}.triggering.Trigger._bind"),
        _STATUS,
    ),
    "RE2": Invariant(
        "an intent is stored before its trigger is sent",
        (f"{_TRIGGERS}.triggering.Trigger._send",),
        _STATUS,
    ),
    "RE5": Invariant(
        "who decides about a sync holds the lease of that sync",
        (f"{_TRIGGERS}.intents.Intents.write",),
        _STATUS,
    ),
    "RE6": Invariant(
        "a request has at most one run",
        (f"{_TRIGGERS}.intents.Intents.write",),
        _STATUS,
    ),
    # Rally: import of files
    "IM1": Invariant(
        "an upload is stored with its file before it is sent, and what is sent is what was stored",
        (f"{_FILES}.journal.ImportJournal.next_chunk", f"{_FILES}.journal.ImportJournal._check_sendable"),
        _STATUS,
    ),
    "IM2": Invariant(
        "an upload that may have been applied is not sent again",
        (f"{_FILES}.journal.ImportJournal._check_sendable",),
        _STATUS,
    ),
    "IM3": Invariant(
        "every row ends imported, duplicate, refused or unknown, once",
        (f"{_FILES}.journal.ImportJournal.decide", f"{_FILES}.journal.ImportJournal.finish"),
        _STATUS,
    ),
}
"""Every invariant of the design that this package can break, and where it is checked."""

NOT_HERE: Mapping[str, str] = {
    "RE3": "rows are written to destinations by SignalSmith; this package only starts its runs",
    "RE4": "as RE3; deletes in the own tables are behind `MassDeleteSuspected` and the sweep's guard",
}
"""Invariants of the design that speak of a part which is not in this package, and why."""


class InvariantViolation(Exception):
    """A promise does not hold, so the run stops; nothing of the transaction at hand was written.

    `name` is a key of `INVARIANTS`.
    """

    def __init__(self, name: str, found: str) -> None:
        invariant = INVARIANTS[name]
        super().__init__(
            f"invariant {name} does not hold ({invariant.promise}): {found}. Nothing of this step was written. This is"
            f" a defect of rally-pipeline: please report this line; `{invariant.command}` shows how things stand"
        )
        self.name = name
        self.found = found
