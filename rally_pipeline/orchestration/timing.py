"""The clock of steps: the machine's, or the one that whoever starts a run in this process puts in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rally_pipeline.clock import Clock

_clock: ContextVar[Clock | None] = ContextVar("_clock", default=None)


@contextmanager
def timed_by(clock: Clock) -> Iterator[None]:
    """Steps executed by this thread inside the block wait and stamp by `clock`."""
    token = _clock.set(clock)
    try:
        yield
    finally:
        _clock.reset(token)


def given_clock() -> Clock | None:
    """The clock for what a step opens; None is the machine's."""
    return _clock.get()
