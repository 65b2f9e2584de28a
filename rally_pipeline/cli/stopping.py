"""Ctrl-C and SIGTERM: the end of a command that works, and of one that serves (or whose parent process ended)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rally_pipeline.cli.failures import CommandFailed


@contextmanager
def stop_requests(*, end_with_stdin: bool = False) -> Iterator[threading.Event]:
    """An event that is set by SIGINT or SIGTERM; with `end_with_stdin` also when the parent closes our stdin."""
    stop = threading.Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    if end_with_stdin:
        threading.Thread(target=_wait_for_end_of_stdin, args=(stop,), daemon=True).start()
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by_signals(line: str) -> Iterator[None]:
    """End the block in an orderly way at SIGINT or SIGTERM.

    Raises:
        CommandFailed: with `line`, when a signal came.
    """
    previous = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    except KeyboardInterrupt:
        raise CommandFailed(line) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_for_end_of_stdin(stop: threading.Event) -> None:
    # os.read: a buffered read would hold a lock that the interpreter's end waits for.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()
