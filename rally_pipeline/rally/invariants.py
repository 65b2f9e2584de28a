"""Checks of the Rally mirror inside the transactions that they guard; `rally_pipeline.invariants` lists them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, literal_column, select

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FeedState
from rally_pipeline.rally.tables import ENTITY_TABLES, dirty
from rally_pipeline.warehouse.values import instant_text, parse_instant

if TYPE_CHECKING:
    from rally_pipeline.rally.client import ChangeEntry, ChangePage
    from rally_pipeline.rally.marks import Mark
    from rally_pipeline.rally.passes import Anchors, PassPage
    from rally_pipeline.warehouse import Transaction

_ID_CHUNK = 500
_PAGES = 16
"""Pages that may hold the anchor of a later one, as in `passes`."""
_YOUNG_MARKS = select(func.count()).select_from(
    select(literal_column("1"))
    .where(dirty.c.entity_type == bindparam("kind"), dirty.c.last_seen >= bindparam("answered"))
    .limit(bindparam("wanted"))
    .subquery()
)
"""Read from the index alone; not more than are wanted are counted, since many marks may be as young."""
_SAMPLE = 200
"""Objects of one batch of looks whose rows are read again."""
_EDGE = 8
"""Rows at the end of a page and the beginning of the next that nearly always hold the anchor."""
_ANY_MARK = select(dirty.c.entity_id).where(dirty.c.entity_type == bindparam("kind")).limit(1)


class OpenMarks:
    """SN1: objects of a page that wait for a look when its transaction begins.

    Marks can only be added meanwhile: who clears them needs the lease that the page's writer holds.
    """

    def __init__(self, tx: Transaction, entity: Entity, ids: Sequence[str]) -> None:
        self._entity = entity
        self._marked: set[str] = set()
        if tx.scalar(_ANY_MARK, {"kind": entity.singular}) is None:
            return
        of_entity = dirty.c.entity_type == entity.singular
        for start in range(0, len(ids), _ID_CHUNK):
            chunk = select(dirty.c.entity_id).where(
                of_entity, dirty.c.entity_id.in_(ids[start : start + _ID_CHUNK])
            )
            self._marked.update(row[0] for row in tx.rows(chunk))

    def check(self, written: Sequence[str]) -> None:
        """Before the rows with these ids are written."""
        if self._marked and not self._marked.isdisjoint(written):
            wrong = self._marked.intersection(written)
            raise InvariantViolation(
                "SN1",
                f"{len(wrong)} {self._entity.value} of a list page have an open mark, for example {min(wrong)}",
            )


class PassCoverage:
    """SN2: an ordered pass as its committed pages show it, with a memory of its own."""

    def __init__(self, *, overlap: int, anchors: Iterable[Anchors], largest: int) -> None:
        self._overlap = overlap
        self._largest = largest
        self._pages: deque[tuple[Sequence[bytes], Sequence[int]]] = deque(
            ((list(page), [version for version, _ in page.values()]) for page in anchors), maxlen=_PAGES
        )

    def check(self, page: PassPage) -> None:
        """Before the page is committed."""
        if page.offset > 0 and not self._is_anchored(page):
            raise InvariantViolation(
                "SN2",
                f"the page at offset {page.offset} shares no unchanged row with an earlier page of its pass",
            )
        self._pages.append((page.keys, page.versions))
        self._largest = max(self._largest, len(set(page.keys)) + len(page.nameless))
        if page.last and page.received >= max(self._largest, self._overlap + 1):
            raise InvariantViolation(
                "SN2", f"the pass ends with a full page of {page.received} rows at offset {page.offset}"
            )

    def _is_anchored(self, page: PassPage) -> bool:
        if not self._pages:
            return False
        keys, versions = self._pages[-1]
        tail = set(zip(keys[-_EDGE:], versions[-_EDGE:], strict=True))
        if not tail.isdisjoint(zip(page.keys[:_EDGE], page.versions[:_EDGE], strict=True)):
            return True
        here = set(zip(page.keys, page.versions, strict=True))
        return any(not here.isdisjoint(zip(*earlier, strict=True)) for earlier in reversed(self._pages))


def check_resumable(stored: Mapping[str, Any] | None, generation: int, page: int) -> None:
    """SN4: the stored pass is the one that this page belongs to, and the page is its next one."""
    known = (stored["generation"], stored["state"]["pages"] + 1) if stored else None
    if known != (generation, page):
        raise InvariantViolation(
            "SN4",
            f"page {page} of pass {generation} does not follow what is stored"
            f" ({'no pass' if known is None else f'page {known[1]} of pass {known[0]} is next'})",
        )


def check_base(tx: Transaction, now: datetime, overlap: timedelta) -> None:
    """SN5: before the first list request, at server time `now`.

    Half the overlap is left for servers whose clocks differ: another process may have read the feed just now.
    """
    cursor = FeedState.load(tx).cursor
    if cursor is None or parse_instant(cursor) > now - overlap / 2:
        raise InvariantViolation(
            "SN5", f"a full pass begins at {instant_text(now)}, the feed's cursor is {cursor or 'not set'}"
        )


def check_step(
    page: ChangePage, kept: Sequence[ChangeEntry], position: str, *, whole_below: int, proven: str | None
) -> None:
    """FD1 and FD5: before the position moves behind the entries that were `kept` of a page.

    `whole_below`: a page with fewer entries cannot have been cut. `proven`: a time whose group was proven whole.
    """
    if not page.entries or page.entries[-1].changed_at <= position:
        return
    if not kept or kept[-1].changed_at <= position:
        raise InvariantViolation("FD5", f"a feed page with news leaves the position at {position}")
    reached = kept[-1].changed_at
    cut = reached >= page.entries[-1].changed_at and page.received >= whole_below and proven != reached
    if cut:
        raise InvariantViolation(
            "FD1",
            f"the position would step over the group of {reached}, which the page's end may have cut"
            f" ({page.received} entries)",
        )


def check_cursor(tx: Transaction, cursor: str, overlap: timedelta) -> None:
    """FD1: before a read is closed, against the start of the read as it was stored before its first request."""
    stored = FeedState.load(tx)
    started = stored.read_started
    bound = instant_text(parse_instant(started) - overlap) if started else ""
    if cursor > max(bound, stored.cursor or ""):
        raise InvariantViolation(
            "FD1", f"the cursor would move to {cursor}, but the read began at {started or 'no time'}"
        )


def check_marked(tx: Transaction, fresh: Sequence[ChangeEntry], answered: datetime) -> None:
    """FD2: before the entries are committed. One indexed query for each entity on the page."""
    named = {(entry.entity_type, entry.entity_id) for entry in fresh}
    for kind, objects in Counter(kind for kind, _ in named).items():
        if Entity.of_singular(kind) is None:
            continue
        marked = int(tx.scalar(_YOUNG_MARKS, {"kind": kind, "answered": answered, "wanted": objects}) or 0)
        if marked < objects:
            raise InvariantViolation("FD2", f"new entries name {objects} {kind} objects, {marked} are marked")


def check_evidence(marks: Iterable[Mark], begun: datetime, staleness: timedelta) -> None:
    """FD3: before the marks are cleared by looks that began at `begun`."""
    for mark in marks:
        if mark.last_seen + staleness > begun:
            raise InvariantViolation(
                "FD3",
                f"the mark of {mark.entity_id} was renewed at {instant_text(mark.last_seen)}, the look began at"
                f" {instant_text(begun)}, less than {staleness.total_seconds():g} s later",
            )


def check_settled(
    tx: Transaction,
    entity: Entity,
    *,
    found: Mapping[str, int],
    gone: Sequence[str] = (),
    equal_content: int = 0,
) -> dict[str, datetime]:
    """FD4: after the looks were written: the objects `found` (with their versions) are there, those `gone` are not.

    Of many objects found, a sample spread over all of them is checked. `equal_content`: rows that were left as they
    were because they differ from the look in nothing but spelling. Returns `updatedAt` of the objects that have one.
    """
    if len(found) > _SAMPLE:
        keys = list(found)[:: len(found) // _SAMPLE]
        found = {key: found[key] for key in keys}
    stored = tx.fetch(ENTITY_TABLES[entity], ("_version", "_deleted_at", "updated_at"), [*found, *gone])
    live = {str(key): version for key, (version, deleted, _) in stored.items() if deleted is None}
    missing = found.keys() - live.keys()
    left = live.keys() & set(gone)
    other = [key for key, version in found.items() if key in live and live[key] != version]
    if missing or left or len(other) > equal_content:
        example = min([*missing, *left, *other])
        raise InvariantViolation(
            "FD4",
            f"after looks at {len(found) + len(gone)} {entity.value}, {len(missing)} rows are missing,"
            f" {len(left)} are left and {len(other)} are not as seen, for example {example}",
        )
    return {
        str(key): parse_instant(updated)
        for key, (_, _, updated) in stored.items()
        if isinstance(updated, str)
    }
