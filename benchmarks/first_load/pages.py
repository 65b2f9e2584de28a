"""Pages of the list for the contestants that read it with `requests`: the next one is asked for in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import requests


def list_pages(
    url: str, page_size: int, *, updated_since: str | None = None, expected: int | None = None
) -> Iterator[bytes]:
    """Bodies of the pages, until one is empty or, where the number of rows is known, until they are there."""
    with requests.Session() as session, ThreadPoolExecutor(1) as executor:

        def ask(offset: int) -> bytes:
            parameters: dict[str, str | int] = {"limit": page_size, "offset": offset}
            if updated_since is not None:
                parameters["updatedSince"] = updated_since
            answer = session.get(f"{url}/contacts", params=parameters, timeout=60)
            answer.raise_for_status()
            return answer.content

        offset = 0
        waiting = executor.submit(ask, offset)
        while len(body := waiting.result()) > 2:
            offset += page_size
            if expected is not None and offset >= expected:
                yield body
                return
            waiting = executor.submit(ask, offset)
            yield body
