"""The records of list pages on their way into one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from rally_pipeline.rally.records import DecodedRows

if TYPE_CHECKING:
    import msgspec

    from rally_pipeline.rally.passes import PassPage

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class PageRows:
    """Records by place: bytes, id, version; all of them decoded, or None; and the records without a usable id."""

    raws: Sequence[msgspec.Raw]
    ids: Sequence[str]
    versions: Sequence[int]
    decoded: DecodedRows | None
    nameless: Sequence[msgspec.Raw]

    @staticmethod
    def of(page: PassPage, drop: Collection[str] = ()) -> PageRows:
        """What is new on a page, without the ids to `drop`.

        What an earlier page of the pass showed in the same version has been dealt with there.
        """
        if not drop and not page.repeated:
            return PageRows(page.rows, page.ids, page.versions, page.decoded, page.nameless)
        kept = _kept(page, drop)
        return PageRows(
            _at(page.rows, kept),
            _at(page.ids, kept),
            _at(page.versions, kept),
            page.decoded.only(kept) if page.decoded is not None else None,
            page.nameless,
        )

    @staticmethod
    def joined(parts: Sequence[PageRows]) -> PageRows:
        """The records of several pages, one after the other."""
        if len(parts) == 1:
            return parts[0]
        decoded = [part.decoded for part in parts if part.decoded is not None]
        return PageRows(
            [*chain.from_iterable(part.raws for part in parts)],
            [*chain.from_iterable(part.ids for part in parts)],
            [*chain.from_iterable(part.versions for part in parts)],
            DecodedRows.joined(decoded, [len(part.ids) for part in parts])
            if len(decoded) == len(parts)
            else None,
            [*chain.from_iterable(part.nameless for part in parts)],
        )


def _kept(page: PassPage, drop: Collection[str]) -> Sequence[int]:
    """The places of what is new on the page; what it shares with the page before mostly stands at its beginning."""
    if not drop:
        shared = len(page.repeated)
        if page.repeated.issuperset(page.keys[:shared]) and page.repeated.isdisjoint(page.keys[shared:]):
            return range(shared, len(page.keys))
    return [
        place
        for place, (entity_id, key) in enumerate(zip(page.ids, page.keys, strict=True))
        if entity_id not in drop and key not in page.repeated
    ]


def _at(items: Sequence[Item], places: Sequence[int]) -> Sequence[Item]:
    if isinstance(places, range):
        return items[places.start : places.stop]
    return [items[place] for place in places]


def without_repeats(parts: Iterable[PageRows]) -> Iterator[PageRows]:
    """The parts joined as far as no id comes twice: a record's second state is judged against the first one stored."""
    together: list[PageRows] = []
    met: set[str] = set()
    for part in parts:
        if together and not met.isdisjoint(part.ids):
            yield PageRows.joined(together)
            together, met = [], set()
        together.append(part)
        met.update(part.ids)
    if together:
        yield PageRows.joined(together)
