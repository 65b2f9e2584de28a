"""What an item of the queue does to the object it speaks of. Pure: no database, no clock.

The queue promises no order, so only three things can be said of an item: it is at least as new as what is stored
and is applied; it is older and is ignored; or it contradicts what is stored, and a look decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What to do with an item."""

    APPLY = "apply"
    DELETE = "delete"
    """Take the row away, and let a look confirm it."""
    IGNORE = "ignore"
    SUSPECT = "suspect"
    """Leave the row as it is, and let a look decide."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of an object before the item is applied."""

    revision: int | None
    """Last real revision that the queue delivered; None for a row that only REST has shown."""
    updated_at: str | None
    """Canonical instant text."""
    is_tombstone: bool = False
    kind: str | None = None
    """For sources: whether of deals or of leads, which REST keeps apart and the queue does not."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """What an item says."""

    is_delete: bool
    is_known_event: bool
    is_bare: bool
    revision: int | None
    updated_at: str | None
    kind: str | None = None


def judge(item: Incoming, stored: Stored | None) -> tuple[Verdict, str]:
    """The verdict, and for a contradiction (and a delete) its reason."""
    if not item.is_known_event:
        return Verdict.SUSPECT, "unknown event type"
    if item.is_delete:
        # A delete of what is deleted already contradicts nothing.
        return (Verdict.IGNORE, "") if stored and stored.is_tombstone else (Verdict.DELETE, DELETED)
    if item.is_bare:
        return Verdict.SUSPECT, "a state without fields"
    if stored is None:
        return Verdict.APPLY, ""
    if stored.is_tombstone:
        return Verdict.SUSPECT, "revival"
    if stored.kind != item.kind and None not in (stored.kind, item.kind):
        return Verdict.SUSPECT, "another resource_type"
    return _compare(item, stored)


DELETED = "deleted"
"""Reason of the look that follows a delete."""
DELETED_OR_NOT = "two states on one page, one of them a delete"
UNLISTED = "not in its pipeline"
ANNOUNCED = frozenset({DELETED, DELETED_OR_NOT, UNLISTED})
"""Reasons by which the queue itself has said that the object is gone: an absence agrees with it."""


def _compare(item: Incoming, stored: Stored) -> tuple[Verdict, str]:
    """By revision; where it has no say, by `updated_at`; where they disagree, by a look."""
    newer = older = False
    if item.updated_at is not None and stored.updated_at is not None:
        newer, older = item.updated_at > stored.updated_at, item.updated_at < stored.updated_at
    if item.revision is None or stored.revision is None:
        return (Verdict.SUSPECT, "older than what REST showed") if older else (Verdict.APPLY, "")
    if item.revision >= stored.revision:
        return (Verdict.SUSPECT, "higher revision, older state") if older else (Verdict.APPLY, "")
    return (Verdict.SUSPECT, "lower revision, newer state") if newer else (Verdict.IGNORE, "")
