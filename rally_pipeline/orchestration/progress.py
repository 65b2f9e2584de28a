"""Progress of a step: in the run's log, or to the person who waits for the run at a terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rally_pipeline.clock import Clock, SystemClock

SECONDS_BETWEEN_LINES = 5.0

Progress = Callable[[str, int, int | None], None]
"""`(stream, done, total)`; the total is None while it is unknown."""

_watcher: ContextVar[Progress | None] = ContextVar("_watcher", default=None)


@contextmanager
def watched(progress: Progress) -> Iterator[None]:
    """Steps executed by this thread inside the block report to `progress` instead of the log."""
    token = _watcher.set(progress)
    try:
        yield
    finally:
        _watcher.reset(token)


def is_watched() -> bool:
    """Whether somebody waits for the run: then a failure is reported at once, not after minutes of retries."""
    return _watcher.get() is not None


def step_progress(log: logging.Logger) -> Progress:
    """How the present step reports."""
    return _watcher.get() or LoggedProgress(log)


class LoggedProgress:
    """At most one line per stream and interval: every line is a row in Dagster's storage."""

    def __init__(self, log: logging.Logger, *, clock: Clock | None = None) -> None:
        self._log = log
        self._clock = clock or SystemClock()
        self._last: dict[str, float] = {}

    def __call__(self, stream: str, done: int, total: int | None) -> None:
        now = self._clock.monotonic()
        if now - self._last.get(stream, float("-inf")) < SECONDS_BETWEEN_LINES:
            return
        self._last[stream] = now
        self._log.info(f"{stream}: {done:,}" + (f" of {total:,}" if total is not None else ""))
