"""Python's search for garbage cycles during bulk work, which makes many objects and no cycles."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

RARELY = 50_000
"""New objects between two searches, instead of Python's 700: a seventh of an unchanged re-read went into them."""


class _Search:
    """How often Python searches, and how many of us want it rarely."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._usual = gc.get_threshold()

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._usual = gc.get_threshold()
                # Zero means that the search is switched off, which is for its owner to change.
                gc.set_threshold(max(self._usual[0], RARELY) if self._usual[0] else 0, *self._usual[1:])
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                gc.set_threshold(*self._usual)


_search = _Search()


@contextmanager
def searched_rarely() -> Iterator[None]:
    """Search rarely while any thread is inside; afterwards as before. Reference counts free everything else at once."""
    _search.enter()
    try:
        yield
    finally:
        _search.leave()
