"""The Core API's reads: single records and lists, for repair."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from rally_pipeline.sandbox.sell.errors import RefusalError
from rally_pipeline.sandbox.sell.options import SellOptions
from rally_pipeline.sandbox.sell.world import Reference, Thing, World
from rally_pipeline.sandbox.wire import Answer, Call

PATHS: dict[str, str] = {
    "leads": "lead",
    "contacts": "contact",
    "deals": "deal",
    "users": "user",
    "notes": "note",
    "tasks": "task",
    "tags": "tag",
    "loss_reasons": "loss_reason",
    "deal_sources": "source",
    "lead_sources": "source",
    "pipelines": "pipeline",
    "stages": "stage",
}
"""First path segment to type."""
LIST_ONLY = frozenset({"pipelines", "stages"})
MOST_PER_PAGE = 100


class CoreReads:
    """Answers reads from the present state, or from the state some time ago (`lag_seconds`)."""

    def __init__(self, world: World, options: SellOptions) -> None:
        self._world = world
        self._options = options
        self.hidden: set[Reference] = set()
        """Objects that REST does not show, as where the token's owner may not see them."""

    def answer(self, call: Call, segments: Sequence[str]) -> Answer:
        """The answer to a GET below `/v2`.

        Raises:
            RefusalError: no such path or object.
        """
        if call.method != "GET":
            raise RefusalError(404, "The path does not exist", code="incorrect_path")
        match segments:
            case ["accounts" | "users" as path, "self"]:
                return self._single(self._first(path.removesuffix("s"), call.at))
            case ["deals", deal, "associated_contacts"]:
                return self._associated(deal, call)
            case [path] if path in PATHS:
                return self._list(path, call)
            case [path, identity] if path in PATHS and path not in LIST_ONLY:
                thing = self._world.things.get((PATHS[path], identity))
                if thing is None or not self._is_under(path, thing, call.at):
                    raise RefusalError(404, "The resource does not exist")
                return self._single((thing, self._state(thing, call.at)))
        raise RefusalError(404, "The path does not exist", code="incorrect_path")

    def _state(self, thing: Thing, now: datetime) -> bytes | None:
        if thing.reference in self.hidden:
            return None
        return thing.as_of(now - timedelta(seconds=self._options.lag_seconds))

    def _first(self, kind: str, now: datetime) -> tuple[Thing, bytes | None]:
        for thing in self._world.things.values():
            if thing.kind == kind:
                return thing, self._state(thing, now)
        raise RefusalError(404, "The resource does not exist")

    def _single(self, found: tuple[Thing, bytes | None]) -> Answer:
        thing, data = found
        if data is None:
            raise RefusalError(404, "The resource does not exist")
        return Answer.raw_json(_wrapped(thing.kind, self._world.shown(thing, data)))

    def _is_under(self, path: str, thing: Thing, now: datetime) -> bool:
        """Sources of deals and of leads have paths of their own."""
        if not path.endswith("_sources"):
            return True
        state = self._state(thing, now)
        return state is not None and b'"resource_type":"%b"' % path.removesuffix("_sources").encode() in state

    def _list(self, path: str, call: Call) -> Answer:
        per_page = min(MOST_PER_PAGE, _number(call, "per_page", 25))
        page = _number(call, "page", 1)
        wanted = call.first("ids") if self._options.ids_filter else None
        ids = None if wanted is None else set(wanted.split(","))
        rows: list[tuple[int, bytes]] = []
        for thing in self._world.things.values():
            if (
                thing.kind == PATHS[path]
                and (ids is None or thing.id in ids)
                and self._is_under(path, thing, call.at)
            ):
                state = self._state(thing, call.at)
                if state is not None:
                    rows.append((int(thing.id), _wrapped(thing.kind, self._world.shown(thing, state))))
        rows.sort(reverse=call.first("sort_by") == "id:desc")
        return _collection([row for _, row in rows], page, per_page, path)

    def _associated(self, deal: str, call: Call) -> Answer:
        """Without the deal's id, which stands in the path only."""
        owner = self._world.things.get(("deal", deal))
        if owner is None or self._state(owner, call.at) is None:
            raise RefusalError(404, "The resource does not exist")
        rows = []
        for thing in self._world.things.values():
            if thing.kind == "associated_contact" and thing.id.startswith(f"{deal}:"):
                state = self._state(thing, call.at)
                if state is not None:
                    rows.append(_wrapped(thing.kind, state.replace(b'"deal_id":%b,' % deal.encode(), b"", 1)))
        per_page = min(MOST_PER_PAGE, _number(call, "per_page", 25))
        return _collection(rows, _number(call, "page", 1), per_page, f"deals/{deal}/associated_contacts")


def _wrapped(kind: str, data: bytes) -> bytes:
    return b'{"data":%b,"meta":{"type":"%b"}}' % (data, kind.encode())


def _collection(rows: Sequence[bytes], page: int, per_page: int, path: str) -> Answer:
    shown = rows[(page - 1) * per_page : page * per_page]
    links = f'"links":{{"self":"http://elsewhere.invalid/v2/{path}?page={page}"'
    if page * per_page < len(rows):
        links += f',"next_page":"http://elsewhere.invalid/v2/{path}?page={page + 1}"'
    meta = f'{{"type":"collection","count":{len(shown)},{links}}}}}'
    return Answer.raw_json(b'{"items":[%b],"meta":%b}' % (b",".join(shown), meta.encode()))


def _number(call: Call, name: str, default: int) -> int:
    text = call.first(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise RefusalError(400, f"The parameter {name} is not a positive number")
    return int(text)
