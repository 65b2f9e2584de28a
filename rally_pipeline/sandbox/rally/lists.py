"""The list endpoints: offset paging over a collection, with all that may be odd about it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

import msgspec

from rally_pipeline.sandbox.wire import Answer, Call

from .collection import SORT_KEYS, Bound, Collection, SortField
from .errors import RallyError
from .instants import first_after, parse_instant, unit_of
from .records import Record
from .schema import ENTITIES
from .store import Moment, Store
from .switches import RallySwitches

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
MAX_INTEGER_DIGITS = 9


class ListReader:
    """Answers `GET /{entity}`."""

    def __init__(self, store: Store, dice: random.Random) -> None:
        self._store = store
        self._dice = dice
        self._pages_beyond_first: dict[str, int] = {}
        self._page_before: dict[str, list[Record]] = {}

    def read(self, entity: str, call: Call, moment: Moment) -> Answer:
        """One page. Raises `RallyError` 400 for parameters that make no sense."""
        switches = self._store.switches
        limit = read_limit(call, switches.default_limit, switches.max_limit, switches.over_limit)
        offset = read_integer(call, "offset", 0, least=0)
        bound = self._read_bound(call)
        wanted = call.first("fields")
        collection = self._store.reading("lists", moment)[0][entity]
        rows, total = self._page(collection, limit, 0 if switches.ignore_offset else offset, bound)
        rows = self._disturb(entity, rows, offset)
        render = self._store.renderers[entity].render
        bodies = [render(record) for record in rows]
        if wanted:
            choose = _chooser(entity, wanted)
            bodies = [choose(body) for body in bodies]
        link = _next_link(switches.next_link, call, offset, limit)
        return Answer.raw_json(_envelop(bodies, switches, total, link))

    def _page(
        self, collection: Collection, limit: int, offset: int, bound: Bound | None
    ) -> tuple[list[Record], int]:
        switches = self._store.switches
        count = limit + switches.overfill
        if switches.list_order == "random":
            view = collection.view("id", bound)
            return _shuffled_slice(view, offset, count, self._dice), len(view)
        descending = switches.list_order.startswith("-")
        sort_field = _sort_field(switches.list_order)
        view = collection.view(sort_field, bound)
        if switches.list_ties == "unstable" and sort_field != "id":
            return self._slice_with_loose_ties(view, sort_field, offset, count, descending), len(view)
        return _slice(view, offset, count, descending), len(view)

    def _slice_with_loose_ties(
        self, view: list[Record], sort_field: SortField, offset: int, count: int, descending: bool
    ) -> list[Record]:
        """A slice of the view after the records of each equal time were shuffled, as a database may."""
        size = len(view)
        low, high = (size - offset - count, size - offset) if descending else (offset, offset + count)
        low, high = max(0, low), min(size, high)
        if low >= high:
            return []
        key = SORT_KEYS[sort_field]
        first, last = low, high
        while first > 0 and key(view[first - 1])[0] == key(view[low])[0]:
            first -= 1
        while last < size and key(view[last])[0] == key(view[high - 1])[0]:
            last += 1
        loose = sorted(view[first:last], key=lambda record: (key(record)[0], self._dice.random()))
        rows = loose[low - first : high - first]
        return rows[::-1] if descending else rows

    def _disturb(self, entity: str, rows: list[Record], offset: int) -> list[Record]:
        switches = self._store.switches
        if offset > 0:
            number = self._pages_beyond_first[entity] = self._pages_beyond_first.get(entity, 0) + 1
            if switches.empty_page_every and number % switches.empty_page_every == 0:
                return []
            if switches.repeat_page_every and number % switches.repeat_page_every == 0:
                return self._page_before.get(entity, rows)
        if switches.repeat_page_every:
            self._page_before[entity] = rows
        share = switches.duplicate_row_share
        if share:
            rows = [copy for row in rows for copy in ([row, row] if self._dice.random() < share else [row])]
        return rows

    def _read_bound(self, call: Call) -> Bound | None:
        text = call.first("updatedSince")
        if text is None:
            return None
        try:
            since, _ = parse_instant(text)
        except (ValueError, OverflowError):
            raise RallyError(
                400, "One or more parameters are invalid.", {"updatedSince": ["Must be an ISO 8601 instant."]}
            ) from None
        switches = self._store.switches
        unit = unit_of(switches.updated_since_digits)
        least = first_after(since, unit, inclusive=switches.updated_since == "inclusive")
        return least, not switches.updated_since_counts_creates


def read_integer(call: Call, name: str, default: int, *, least: int) -> int:
    """A whole-number parameter. Raises `RallyError` 400."""
    text = call.first(name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_INTEGER_DIGITS) or int(text) < least:
        message = f"Must be a whole number of at least {least}."
        raise RallyError(400, "One or more parameters are invalid.", {name: [message]})
    return int(text)


def read_limit(call: Call, default: int, greatest: int, over: str) -> int:
    """The parameter `limit`, capped silently or refused above `greatest`. Raises `RallyError` 400."""
    limit = read_integer(call, "limit", default, least=1)
    if limit > greatest and over == "refuse":
        message = f"Must not be greater than {greatest}."
        raise RallyError(400, "One or more parameters are invalid.", {"limit": [message]})
    return min(limit, greatest)


def _sort_field(order: str) -> SortField:
    name = order.removeprefix("-")
    if name == "id":
        return "id"
    return "createdAt" if name == "createdAt" else "updatedAt"


def _slice(view: list[Record], offset: int, count: int, descending: bool) -> list[Record]:
    if not descending:
        return view[offset : offset + count]
    end = len(view) - offset
    return view[max(0, end - count) : end][::-1] if end > 0 else []


def _shuffled_slice(view: Sequence[Record], offset: int, count: int, dice: random.Random) -> list[Record]:
    """Part of an order that is new for each answer: an affine walk through the view, so that only the page
    is touched.
    """
    size = len(view)
    if offset >= size:
        return []
    step = next(number for number in iter(lambda: dice.randrange(1, size + 1), 0) if _coprime(number, size))
    start = dice.randrange(size)
    return [view[(start + step * at) % size] for at in range(offset, min(size, offset + count))]


def _coprime(first: int, second: int) -> bool:
    while second:
        first, second = second, first % second
    return first == 1


def _chooser(entity: str, wanted: str) -> Callable[[bytes], bytes]:
    """What `fields` leaves of a record: the named members that exist, and always `id`."""
    names = {"id", *(name.strip() for name in wanted.split(","))}
    kept = [name for name in ENTITIES[entity].order if name in names]

    def choose(body: bytes) -> bytes:
        members = _decode_members(body)
        parts = (_encode(name) + b":" + bytes(members[name]) for name in kept if name in members)
        return b"{" + b",".join(parts) + b"}"

    return choose


def _next_link(kind: str, call: Call, offset: int, limit: int) -> str | None:
    """Where an answer says that the next page is: rightly, at itself, at the page before, or on another host."""
    if kind == "none":
        return None
    host = "https://evil.example" if kind == "foreign" else f"http://{call.headers.get('host', '127.0.0.1')}"
    step = {"self": 0, "back": -limit}.get(kind, limit)
    pairs = [(name, value) for name, value in call.query_pairs() if name not in ("limit", "offset")]
    query = urlencode([*pairs, ("limit", limit), ("offset", max(0, offset + step))])
    return f"{host}{call.path}?{query}"


def _envelop(bodies: list[bytes], switches: RallySwitches, total: int, link: str | None) -> bytes:
    rows = b"[" + b",".join(bodies) + b"]"
    if switches.envelope == "bare":
        return rows
    counted = b""
    if switches.total_key != "none":
        counted = b',"%b":%d' % (switches.total_key.encode(), total + switches.total_error)
    if link is not None:
        counted += b',"next":' + _encode(link)
    return b'{"%b":' % switches.envelope.encode() + rows + counted + b"}"
