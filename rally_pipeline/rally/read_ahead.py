"""Reading pages while earlier ones are being committed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

Page = TypeVar("Page")

PATIENCE_SECONDS = 1.0
"""How long the end of a reading waits for its last request, which may be stalled; nothing is lost with its answer."""


class _End(NamedTuple):
    """The pages are over, or reading them failed."""

    error: BaseException | None


def in_batches(pages: Iterator[Page], *, most: int, ahead: bool) -> Iterator[list[Page]]:
    """All pages in order, in lists of 1 to `most`; what reading them raises comes after the pages before it.

    With `ahead` a thread reads, up to `most` pages beyond those handed out, and a list is what it has ready: a slow
    source gives pages one by one, of a fast one the consumer gets as many as came while it was busy. Without, each
    list is full. Close the iterator (`contextlib.closing`) to end the reading early.
    """
    if ahead:
        yield from _read_ahead(pages, most)
        return
    batch: list[Page] = []
    try:
        for page in pages:
            batch.append(page)
            if len(batch) == most:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def read_ahead(pages: Iterator[Page], *, ahead: bool) -> Iterator[Page]:
    """The pages one by one, where `ahead` is on read by a thread."""
    for batch in in_batches(pages, most=1, ahead=ahead):
        yield from batch


def _read_ahead(pages: Iterator[Page], most: int) -> Iterator[list[Page]]:
    ready: SimpleQueue[Page | _End] = SimpleQueue()
    free = threading.Semaphore(most)
    stopped = False

    def read() -> None:
        failure: BaseException | None = None
        try:
            free.acquire()
            for page in pages:
                ready.put(page)
                free.acquire()
                if stopped:
                    break
        except BaseException as error:  # noqa: BLE001 (raised where the pages are used)
            failure = error
        ready.put(_End(failure))

    reader = threading.Thread(target=read, name="list-page", daemon=True)
    reader.start()
    try:
        while True:
            batch, end = _take(ready, most)
            for _ in batch:
                free.release()
            if batch:
                yield batch
            if end is not None:
                if end.error is not None:
                    raise end.error
                return
    finally:
        stopped = True
        free.release()
        reader.join(PATIENCE_SECONDS)


def _take(ready: SimpleQueue[Page | _End], most: int) -> tuple[list[Page], _End | None]:
    """What is there, waiting for the first; and the end, if it has come."""
    batch: list[Page] = []
    while not batch or (len(batch) < most and not ready.empty()):
        taken = ready.get()
        if isinstance(taken, _End):
            return batch, taken
        batch.append(taken)
    return batch, None
