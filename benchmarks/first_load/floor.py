"""The least that a loader has to do: requests, orjson, a bulk upsert with a guard, rows and cursor in one commit.

It keeps no anchors, so a list that moves while it is read loses rows; it keeps no marks, no quarantine and no unknown
fields, and takes every record to be well-formed. That is why it is a floor and not a product.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from benchmarks.first_load.pages import list_pages
from benchmarks.first_load.typed_table import Record, in_batches, open_table

BATCH = 10_000
"""Rows in one transaction."""


class _Head(msgspec.Struct, gc=False):
    id: str
    updatedAt: str  # noqa: N815 (name of the API)


_read_heads = msgspec.json.Decoder(list[_Head]).decode


def load(*, url: str, database: str, page_size: int, stage: str) -> dict[str, Any]:
    """Every row of the list, or what was updated since the cursor."""
    table = open_table(database)
    since = table.cursor() if stage == "changed" else None
    newest = since or ""

    def write(records: list[Record]) -> None:
        nonlocal newest
        newest = max(newest, *(record["updatedAt"] for record in records))
        table.write(records, newest)

    pages = (orjson.loads(body) for body in list_pages(url, page_size, updated_since=since))
    received = in_batches(pages, BATCH, write)
    table.close()
    return {"received": received}


def look_first(*, url: str, database: str, page_size: int, stage: str) -> dict[str, Any]:
    """The same, but a page is scanned for id and time of change, and decoded only if something on it is new."""
    table = open_table(database)
    since = table.cursor() if stage == "changed" else None
    stored = table.versions()
    newest = since or ""
    written = 0

    def write(records: list[Record]) -> None:
        nonlocal newest, written
        newest = max(newest, *(record["updatedAt"] for record in records))
        written += len(records)
        table.write(records, newest)

    def sifted(body: bytes) -> list[Record]:
        heads = _read_heads(body)
        fresh = [place for place, head in enumerate(heads) if stored.get(head.id) != head.updatedAt]
        if not fresh:
            return []
        records = orjson.loads(body)
        return [records[place] for place in fresh]

    in_batches((sifted(body) for body in list_pages(url, page_size, updated_since=since)), BATCH, write)
    table.close()
    return {"written": written}
