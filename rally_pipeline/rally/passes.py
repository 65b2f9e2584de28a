"""Reading a whole list by offset pages while it changes, without missing a row that does not change.

Offset paging loses rows: a delete ahead of the offset moves every later row one place, and one live, unchanged row is
never returned. A page is therefore accepted only if it holds an *anchor*: a row that an earlier page of this pass
returned in the same version. An anchored page is a contiguous piece of the order at one instant, so every unchanged
row between the anchor and its end is in it. Without an anchor the pass steps back.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Protocol

import msgspec

from rally_pipeline.rally.client import ListPage
from rally_pipeline.rally.records import KEY_BYTES, DecodedRows, keys_of, versions_of

_REMEMBERED_PAGES = 16
_STALLED_PAGES = 5

Anchors = dict[bytes, tuple[int, int]]
"""What one page showed: key of a row -> (version, place on the page)."""


class DecodeAhead(Protocol):
    """Decodes the rows of a page while the page before is being stored; None where that would not pay."""

    def __call__(
        self, rows: list[msgspec.Raw], versions: list[int], begun: datetime
    ) -> DecodedRows | None: ...


class UnorderedList(Exception):
    """The list has no stable order: unchanged rows changed places, or pages find no anchor."""


class EndlessList(Exception):
    """Page after page brings nothing new: the server seems to ignore `offset`."""


@dataclass(frozen=True, slots=True)
class PassState:
    """Where a pass stands; stored with each page's rows, so that it can go on after a crash."""

    offset: int = 0
    largest: int = 0
    """Different rows of the largest page of this pass."""
    pages: int = 0
    received: int = 0
    step_backs: int = 0

    def to_dict(self) -> dict[str, int]:
        """For `sync_state`."""
        return asdict(self)

    @staticmethod
    def from_dict(stored: dict[str, int]) -> PassState:
        """From `sync_state`."""
        return PassState(**{name: stored[name] for name in PassState.__slots__ if name in stored})


@dataclass(frozen=True, slots=True)
class _Answer:
    """A list answer whose rows are recognised by key and version."""

    rows: list[msgspec.Raw]
    ids: list[str]
    keys: list[bytes]
    versions: list[int]
    nameless: list[msgspec.Raw]
    """Rows without a usable id."""
    begun: datetime
    asked: int
    """Rows asked for."""
    decoded: DecodedRows | None
    """All rows decoded ahead, or None."""

    @property
    def received(self) -> int:
        """Rows of the answer, also those without an id."""
        return len(self.rows) + len(self.nameless)


@dataclass(frozen=True, slots=True)
class PassPage(_Answer):
    """A page that counts: its rows, what they are known by, and where the pass stands after it."""

    repeated: frozenset[bytes]
    """Keys of rows that an earlier page of the pass showed in the same version."""
    offset: int
    last: bool
    after: PassState

    def packed_keys(self) -> bytes:
        """`KEY_BYTES` a row."""
        return b"".join(self.keys)

    def packed_versions(self) -> bytes:
        """Eight bytes a row."""
        return array("q", self.versions).tobytes()


def unpack_anchors(keys: bytes, versions: bytes) -> Anchors:
    """What `packed_keys` and `packed_versions` stored."""
    numbers = array("q")
    numbers.frombytes(versions)
    return {keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]: (number, i) for i, number in enumerate(numbers)}


class ListPass:
    """One anchored pass over a list. Algorithm: correctness, section "Snapshot beside live changes"."""

    def __init__(
        self,
        fetch: Callable[[int], ListPage],
        *,
        overlap: int,
        state: PassState | None = None,
        anchors: Iterable[Anchors] = (),
        decode_ahead: DecodeAhead | None = None,
    ) -> None:
        self._fetch = fetch
        self._decode_ahead = decode_ahead
        self._overlap = overlap
        self._state = state or PassState()
        self._anchors: deque[Anchors] = deque()
        self._met: set[bytes] = set()
        """Keys of the remembered pages, and of some that are forgotten."""
        self._forgotten = 0
        for page in anchors:
            self._remember(page)
        self._steps_in_a_row = 0
        self._stalled = 0

    @property
    def state(self) -> PassState:
        """Where the pass stands now."""
        return self._state

    def pages(self) -> Iterator[PassPage]:
        """Accepted pages in order; the consumer stores `page.after` with the page's rows.

        Raises:
            UnorderedList: rows that did not change stand in another order than before.
            EndlessList: the server repeats itself.
        """
        while True:
            page = self._recognise(_answer_of(self._fetch(self._state.offset), self._decode_ahead))
            if page is None:
                continue
            yield page
            if page.last:
                return

    def _recognise(self, answer: _Answer) -> PassPage | None:
        """The page, with the state moved past it; None, with the state moved back, if it has no anchor."""
        page = _page_of(answer, self._state)
        state = self._state
        places = range(len(page.keys))
        here = dict(zip(page.keys, zip(page.versions, places, strict=True), strict=True))
        self._note_progress(page, here)
        repeated = self._find_repeated(page) if state.offset > 0 else set()
        if state.offset > 0 and not repeated:
            self._step_back(page.received)
            return None
        self._steps_in_a_row = 0
        # A row that a page shows twice is one row of the list: the offset counts it once, and so does the page size.
        distinct = len(here) + len(page.nameless)
        largest = max(state.largest, distinct)
        self._state = replace(
            state,
            offset=max(0, state.offset + distinct - self._overlap),
            largest=largest,
            pages=state.pages + 1,
            received=state.received + page.received,
        )
        self._remember(here)
        # Pages that are asked for in a smaller size from now on are no sign of the end.
        last = page.received < max(min(largest, page.asked), self._overlap + 1)
        return replace(page, repeated=frozenset(repeated), last=last, after=self._state)

    def _remember(self, page: Anchors) -> None:
        self._anchors.append(page)
        self._met.update(page)
        if len(self._anchors) > _REMEMBERED_PAGES:
            self._anchors.popleft()
            self._forgotten += 1
        if self._forgotten > _REMEMBERED_PAGES:
            # Taking out each forgotten key by itself would cost more than all the rest of a pass.
            self._met = set().union(*self._anchors)
            self._forgotten = 0

    def _find_repeated(self, page: PassPage) -> set[bytes]:
        """Keys of the rows that an earlier page showed in the same version: the anchors.

        Raises:
            UnorderedList: such rows stand in another order than before.
        """
        repeated: set[bytes] = set()
        met_before = self._met.intersection(page.keys)
        if not met_before:
            return repeated
        in_order = [
            (key, version) for key, version in zip(page.keys, page.versions, strict=True) if key in met_before
        ]
        for earlier in self._anchors:
            place_before = -1
            for key, version in in_order:
                seen_version, place = earlier.get(key, (None, -1))
                if seen_version == version:
                    if place < place_before:
                        raise UnorderedList("unchanged rows changed places between two pages")
                    place_before = place
                    repeated.add(key)
        return repeated

    def _note_progress(self, page: PassPage, here: Anchors) -> None:
        """A server that ignores the offset gives the same page again and again.

        Rows that are all known are no sign of that: they were moved on by others that came in ahead of them.
        """
        same = page.received > self._overlap and self._anchors and self._anchors[-1].keys() == here.keys()
        self._stalled = self._stalled + 1 if same else 0
        if self._stalled >= _STALLED_PAGES:
            raise EndlessList(
                f"{_STALLED_PAGES} list pages in a row brought nothing new (offset {page.offset}):"
                " the server seems to ignore offset"
            )

    def _step_back(self, received: int) -> None:
        state = self._state
        self._steps_in_a_row += 1
        if state.step_backs >= 20 + state.pages:
            raise UnorderedList(f"{state.step_backs} steps back over {state.pages} pages")
        # Pages older than the remembered ones offer no anchor: begin again, which is always accepted.
        forgotten = self._steps_in_a_row >= _REMEMBERED_PAGES
        offset = 0 if forgotten else max(0, state.offset - max(state.largest, received, 1))
        self._state = replace(state, offset=offset, step_backs=state.step_backs + 1)


def read_unordered(
    fetch: Callable[[int], ListPage], *, state: PassState, agreement: int, max_passes: int = 60
) -> Iterator[PassPage]:
    """Pages of a list in random order: whole passes until `agreement` in a row bring no new id.

    Completeness is likely, not certain: the caller reports the pass as unverified. `last` is true on the final page.
    """
    met: set[bytes] = set()
    quiet = 0
    for number in range(max_passes):
        before = len(met)
        offset, largest, ended = 0, 0, False
        while not ended:
            page = _page_of(_answer_of(fetch(offset)), replace(state, offset=offset))
            met.update(page.keys)
            offset += page.received
            largest = max(largest, page.received)
            ended = page.received == 0 or page.received < min(largest, page.asked)
            state = replace(
                state,
                offset=offset,
                pages=state.pages + 1,
                received=state.received + page.received,
                largest=max(state.largest, largest),
            )
            quiet_now = quiet + 1 if len(met) == before else 0
            last = ended and (quiet_now >= agreement or number == max_passes - 1)
            yield replace(page, last=last, after=state)
            if last:
                return
        quiet = quiet + 1 if len(met) == before else 0


def _page_of(answer: _Answer, state: PassState) -> PassPage:
    return PassPage(
        rows=answer.rows,
        ids=answer.ids,
        keys=answer.keys,
        versions=answer.versions,
        nameless=answer.nameless,
        begun=answer.begun,
        asked=answer.asked,
        decoded=answer.decoded,
        repeated=frozenset(),
        offset=state.offset,
        last=False,
        after=state,
    )


def _answer_of(page: ListPage, decode_ahead: DecodeAhead | None = None) -> _Answer:
    rows, ids, nameless = _split(page)
    versions = versions_of(rows)
    return _Answer(
        rows=rows,
        ids=ids,
        keys=keys_of(ids),
        versions=versions,
        nameless=nameless,
        begun=page.begun,
        asked=page.asked,
        decoded=decode_ahead(rows, versions, page.begun) if decode_ahead is not None else None,
    )


def _split(answer: ListPage) -> tuple[list[msgspec.Raw], list[str], list[msgspec.Raw]]:
    if None not in answer.ids:
        return answer.rows, [entity_id for entity_id in answer.ids if entity_id is not None], []
    rows: list[msgspec.Raw] = []
    ids: list[str] = []
    nameless: list[msgspec.Raw] = []
    for raw, entity_id in zip(answer.rows, answer.ids, strict=True):
        if entity_id is None:
            nameless.append(raw)
        else:
            rows.append(raw)
            ids.append(entity_id)
    return rows, ids, nameless
