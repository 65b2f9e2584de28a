"""The change feed's endpoint: `GET /sync/changes`."""

from __future__ import annotations

from rally_pipeline.sandbox.wire import Answer, Call

from .errors import RallyError
from .feed import entry_text
from .instants import TICKS_PER_SECOND, parse_instant
from .lists import read_limit
from .schema import ENTITIES
from .store import Moment, Store

_MISREAD_NAIVE_SECONDS = 2 * 3600


def read_changes(store: Store, call: Call, moment: Moment) -> Answer:
    """One page of the feed. Raises `RallyError` 400 for parameters that make no sense, and beyond the
    retention.
    """
    switches = store.switches
    since = _read_since(store, call)
    types = _read_entities(store, call)
    limit = read_limit(call, switches.feed_default_limit, switches.feed_max_limit, switches.feed_over_limit)
    store.feed.reveal(moment.elapsed)
    horizon = store.feed.horizon(moment.wall)
    if horizon is not None and since < horizon and switches.retention_answer == "error":
        raise RallyError(400, "The change feed no longer reaches back to 'since': read the lists in full.")
    if types is None:
        return Answer.raw_json(b"[]")
    _, seen_until = store.reading("feed", moment)
    page = store.feed.after(since, limit, types, moment.wall, seen_until)
    return Answer.raw_json(b"[" + b",".join(entry_text(entry, text) for entry, text in page) + b"]")


def _read_since(store: Store, call: Call) -> int:
    text = call.first("since")
    if text is None:
        raise _refused("since", "The parameter is required.")
    try:
        ticks, offset = parse_instant(text)
    except (ValueError, OverflowError):
        raise _refused("since", "Must be an ISO 8601 instant.") from None
    switches = store.switches
    if not offset:
        if switches.feed_naive_since == "refuse":
            raise _refused("since", "Must name its offset from UTC.")
        misread = switches.feed_naive_since == "misread"
        return ticks - _MISREAD_NAIVE_SECONDS * TICKS_PER_SECOND if misread else ticks
    if offset not in "Zz" and switches.feed_offset_since != "accept":
        if switches.feed_offset_since == "refuse":
            raise _refused("since", "Must be in UTC and end in Z.")
        return parse_instant(text.strip().removesuffix(offset))[0]
    return ticks


def _read_entities(store: Store, call: Call) -> frozenset[str] | None:
    """The entity types asked for, empty for all; None where only unknown ones were named and are ignored."""
    text = call.first("entities")
    if text is None:
        return frozenset()
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ENTITIES]
    if unknown and store.switches.unknown_entities == "refuse":
        raise _refused("entities", "Use contacts, companies, deals or activities.")
    types = frozenset(ENTITIES[name].singular for name in names if name in ENTITIES)
    return types if types or not names else None


def _refused(name: str, message: str) -> RallyError:
    return RallyError(400, "One or more parameters are invalid.", {name: [message]})
