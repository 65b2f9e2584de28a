"""The two loops beside this package: what the documentation shows, and the least that is possible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import requests

from benchmarks.first_load.pages import list_pages
from benchmarks.first_load.typed_table import open_table

_FEED_PAGE = 1_000
Entry = dict[str, Any]


def documented(*, url: str, database: str, since: str) -> dict[str, Any]:
    """A page of changes, a GET for each of them, one commit a page."""
    table = open_table(database)
    looks = 0
    with requests.Session() as session:
        for entries in _feed_pages(session, url, since):
            records = []
            for entry in entries:
                answer = session.get(f"{url}/contacts/{entry['entityId']}", timeout=60)
                answer.raise_for_status()
                records.append(answer.json())
            looks += len(records)
            # Two changes of one record give the same record twice; a statement may write a row only once.
            table.write(list({record["id"]: record for record in records}.values()), entries[-1]["changedAt"])
    table.close()
    return {"looks": looks}


def least(*, url: str, database: str, since: str) -> dict[str, Any]:
    """The feed's pages, then the pages of changed records until each has been seen."""
    table = open_table(database)
    wanted: set[str] = set()
    with requests.Session() as session:
        entries = [entry for page in _feed_pages(session, url, since) for entry in page]
    wanted.update(entry["entityId"] for entry in entries)
    changed = len(wanted)
    for body in list_pages(url, _FEED_PAGE, updated_since=entries[0]["changedAt"], expected=changed):
        records = [record for record in orjson.loads(body) if record["id"] in wanted]
        wanted.difference_update(record["id"] for record in records)
        table.write(records, entries[-1]["changedAt"])
    table.close()
    return {"unseen": len(wanted)}


def _feed_pages(session: requests.Session, url: str, since: str) -> Iterator[list[Entry]]:
    """Pages of the feed, each read from the last entry of the one before, until one is not full."""
    while True:
        parameters: dict[str, str | int] = {"since": since, "limit": _FEED_PAGE}
        answer = session.get(f"{url}/sync/changes", params=parameters, timeout=60)
        answer.raise_for_status()
        entries: list[Entry] = answer.json()
        if entries:
            yield entries
            since = entries[-1]["changedAt"]
        if len(entries) < _FEED_PAGE:
            return
