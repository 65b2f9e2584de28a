"""The ways to spoil the Rally mirror that the histories have to notice: correctness, section 12.

Each patch also puts the mirror's own checks (`rally.invariants`) out of action, so that it is the histories that catch
it, by what they find in the warehouse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally import changes, deletes, extract, invariants, looks, marks
from rally_pipeline.rally.changes import ChangeReader
from rally_pipeline.rally.client import ChangeEntry, ChangePage
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.extract import Extract
from rally_pipeline.rally.feed_log import FeedLog
from rally_pipeline.rally.feed_state import FeedState, required
from rally_pipeline.rally.groups import LargeGroups, ReadFrom
from rally_pipeline.rally.passes import ListPass, PassPage
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.tables import ENTITY_TABLES
from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse.values import instant_text, parse_instant
from tests.simulation.script import Mutant, patched

Patch = Callable[[], AbstractContextManager[None]]


@contextmanager
def without_checks() -> Iterator[None]:
    """The mirror without the checks that would stop it before a commit."""
    with ExitStack() as stack:
        for module in (changes, deletes, extract, looks):
            for name in [name for name in vars(module) if _is_check(module, name)]:
                stack.enter_context(patched(module, **{name: _silenced(getattr(module, name))}))
        for kind in (invariants.OpenMarks, invariants.PassCoverage):
            stack.enter_context(patched(kind, check=_silenced(kind.__dict__["check"])))
        yield


def _is_check(module: Any, name: str) -> bool:
    return name.startswith("check_") and getattr(module, name).__module__ == invariants.__name__


def _silenced(check: Callable[..., Any]) -> Callable[..., Any]:
    def ask(*arguments: Any, **named: Any) -> Any:
        try:
            return check(*arguments, **named)
        except InvariantViolation:
            return {}

    return ask


def _passes(*_: Any, **__: Any) -> None:
    return None


def _replacing(owner: Any, **replacements: Any) -> Patch:
    @contextmanager
    def patch() -> Iterator[None]:
        with without_checks(), patched(owner, **replacements):
            yield

    return patch


# ---------------------------------------------------------------------- the feed


def _keep_all(_self: ChangeReader, _state: FeedState, page: ChangePage, _position: str) -> list[ChangeEntry]:
    return page.entries


def _group_is_whole(
    _self: LargeGroups, page: ChangePage, _position: datetime, _last: str
) -> list[ChangeEntry]:
    return page.entries


def _read_until_short(self: ChangeReader, state: FeedState) -> None:
    self._checks.check_age(state)
    while True:
        position = required(state.position)
        page = self._ask(parse_instant(position))
        if self._begin_again(state, page):
            continue
        self._checks.check_known(state, page)
        ends = page.received < self._policy.feed_limit
        try:
            kept = page.entries if ends else self._kept(state, page, position)
        except ReadFrom as further:
            self._go_on_from(state, further)
            continue
        self._record(state, page, kept, ends=ends)
        if ends:
            return


def _close_at_end(self: ChangeReader, state: FeedState) -> None:
    state.read_started = instant_text(self._client.server_floor())
    state.opened_at = instant_text(self._client.clock.now())
    _close(self, state)


def _trust_deletes(self: FeedLog, tx: Any, fresh: list[ChangeEntry], answered: datetime) -> None:
    gone = {entry.entity_id: entry for entry in fresh if entry.action == "deleted"}
    for entry in gone.values():
        entity = Entity.of_singular(entry.entity_type)
        if entity is not None:
            tx.delete(ENTITY_TABLES[entity], [entry.entity_id], mode=DeleteMode.HARD, at=answered)
    _mark(self, tx, [entry for entry in fresh if entry.action != "deleted"], answered)


def _record_twice(
    self: ChangeReader,
    state: FeedState,
    page: ChangePage,
    kept: list[ChangeEntry],
    *,
    ends: bool,
    store: bool = True,
) -> None:
    """The cursor and the entries first, the marks in a transaction of their own."""
    held: list[tuple[list[ChangeEntry], datetime]] = []

    def hold(_log: FeedLog, _tx: Any, fresh: list[ChangeEntry], answered: datetime) -> None:
        held.append((fresh, answered))

    with patched(FeedLog, mark=hold):
        _record(self, state, page, kept, ends=ends, store=store)
    with self._warehouse.transaction("rally.feed.marks", self._lease) as tx:
        for fresh, answered in held:
            self._log.mark(tx, fresh, answered)


_close = ChangeReader.__dict__["_close"]
_record = ChangeReader.__dict__["_record"]
_mark = FeedLog.__dict__["mark"]

# ---------------------------------------------------------------------- full passes


_NO_ROW = {b"no row of the page"}
"""Lets a page count as anchored without any of its rows being taken for a repeated one."""


def _always_anchored(self: ListPass, page: PassPage) -> set[bytes]:
    return _find_repeated(self, page) or _NO_ROW


def _anchored_by_id(self: ListPass, page: PassPage) -> set[bytes]:
    met = any(key in self._met for key in page.keys)
    return _find_repeated(self, page) or (_NO_ROW if met else set())


def _anchored_by_table(self: ListPass, page: PassPage) -> set[bytes]:
    """A row that is stored in the same version counts, wherever it came from."""
    owner = getattr(self._fetch, "__self__", None)
    if not isinstance(owner, Extract):
        return _find_repeated(self, page)
    with owner._warehouse.reading() as tx:
        stored = tx.versions(owner._table, page.ids)
    known = any(
        stored.get(entity_id) == version for entity_id, version in zip(page.ids, page.versions, strict=True)
    )
    return _find_repeated(self, page) or (_NO_ROW if known else set())


def _recognise_short_as_end(self: ListPass, answer: Any) -> PassPage | None:
    page = _recognise(self, answer)
    return None if page is None else replace(page, last=page.last or page.received < 1000)


def _write_without_drop(self: Extract, *arguments: Any, **named: Any) -> Any:
    with patched(marks, has_marks=lambda *_: False, marked_among=lambda *_: set()):
        return _write_pages(self, *arguments, **named)


def _begin_without_base(self: Extract, *arguments: Any, **named: Any) -> Any:
    with patched(extract, ensure_base=_passes):
        return _begin(self, *arguments, **named)


def _finish_with_base(self: Extract, *arguments: Any, **named: Any) -> Any:
    result = _run(self, *arguments, **named)
    client = self._client
    _ensure_base(self._warehouse, client.server_floor(), self._policy, now=client.clock.now())
    return result


_find_repeated: Callable[[ListPass, PassPage], set[bytes]] = ListPass.__dict__["_find_repeated"]
_recognise = ListPass.__dict__["_recognise"]
_write_pages = Extract.__dict__["_write_pages"]
_begin = Extract.__dict__["_begin"]
_run = Extract.__dict__["run"]
_ensure_base = extract.__dict__["ensure_base"]


@contextmanager
def _cursor_after_pass() -> Iterator[None]:
    with without_checks(), patched(Extract, _begin=_begin_without_base, run=_finish_with_base):
        yield


def _overlap_of(share: float) -> property:
    return property(lambda self: timedelta(seconds=int(self.overlap_seconds * share)))


def _mutants() -> Sequence[Mutant]:
    no_wait = property(lambda _self: timedelta(0))
    return (
        Mutant("tie-group-not-held-back", "feed: the trailing tie group of a page is stepped over",
               _replacing(ChangeReader, _kept=_keep_all)),
        Mutant("tie-group-as-large-as-the-cap", "feed: a page full of one time is taken for the whole group",
               _replacing(LargeGroups, read=_group_is_whole)),
        Mutant("short-feed-page-is-end", "feed: a page with fewer entries than asked for ends the read",
               _replacing(ChangeReader, _read_pages=_read_until_short)),
        Mutant("no-overlap", "feed: the cursor is the start of the read, without an overlap",
               _replacing(MirrorPolicy, overlap=no_wait)),
        Mutant("small-overlap", "feed: the overlap is below L + g + V",
               _replacing(MirrorPolicy, overlap=_overlap_of(0.6))),
        Mutant("cursor-from-the-end", "feed: the cursor counts from the end of the read",
               _replacing(ChangeReader, _close=_close_at_end)),
        Mutant("first-look-trusted", "looks: evidence may be as old as the hint",
               _replacing(MirrorPolicy, staleness=no_wait)),
        Mutant("deleted-trusted", "feed: a `deleted` entry deletes without a look",
               _replacing(FeedLog, mark=_trust_deletes)),
        Mutant("cursor-and-marks-apart", "feed: cursor and marks in two transactions",
               _replacing(ChangeReader, _record=_record_twice)),
        Mutant("no-anchor", "pass: pages need no anchor",
               _replacing(ListPass, _find_repeated=_always_anchored)),
        Mutant("anchor-by-id", "pass: an anchor may have changed",
               _replacing(ListPass, _find_repeated=_anchored_by_id)),
        Mutant("anchor-from-a-look", "pass: a row that a look stored may be the anchor",
               _replacing(ListPass, _find_repeated=_anchored_by_table)),
        Mutant("short-list-page-is-end", "pass: a page with fewer rows than asked for ends the pass",
               _replacing(ListPass, _recognise=_recognise_short_as_end)),
        Mutant("no-drop-rule", "pass: rows with an open mark are written",
               _replacing(Extract, _write_pages=_write_without_drop)),
        Mutant("cursor-after-the-pass", "pass: the feed's cursor is fixed after the full read",
               _cursor_after_pass),
    )  # fmt: skip


MUTANTS = _mutants()
