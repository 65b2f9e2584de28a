"""Records that Rally has created or changed since a moment, read from the lists."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from rally_pipeline.rally.passes import ListPass, PassPage, PassState, UnorderedList, read_unordered

if TYPE_CHECKING:
    import msgspec

    from rally_pipeline.rally.client import ListPage, RallyClient
    from rally_pipeline.rally.entities import Entity

_PAGE_LIMIT = 1_000
_PAGE_OVERLAP = 2
_AGREEMENT = 3


def read_records(client: RallyClient, entity: Entity, since: datetime) -> Iterator[msgspec.Raw]:
    """Every record whose `updatedAt` is `since` or later; one that changes meanwhile may come twice.

    Offset paging over a moving list skips rows, so pages are anchored to each other; a list without a stable
    order is read until whole passes bring nothing new.
    """

    def fetch(offset: int) -> ListPage:
        return client.list_page(entity, offset=offset, limit=_PAGE_LIMIT, updated_since=since)

    try:
        for page in ListPass(fetch, overlap=_PAGE_OVERLAP).pages():
            yield from page.rows
    except UnorderedList:
        pages: Iterator[PassPage] = read_unordered(fetch, state=PassState(), agreement=_AGREEMENT)
        for page in pages:
            yield from page.rows
