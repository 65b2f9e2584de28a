"""Signals during a transaction.

Orchestrators and shells stop a process by a signal whose handler raises, at whatever instruction is being executed.
Between the steps of beginning, undoing and closing a transaction that would leave it open, and its lock taken, for as
long as somebody keeps the traceback.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

DEFERRED = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block has ended, then deliver them to the handlers in force before.

    Only the main thread runs handlers of signals, so elsewhere nothing has to be done. Blocks may be nested.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    handlers = {number: signal.getsignal(number) for number in DEFERRED}
    # None: a handler that is not Python's, which runs no Python code and cannot be put back.
    replaced = [number for number, handler in handlers.items() if handler is not None]

    def note(number: int, _frame: FrameType | None) -> None:
        if number not in caught:
            caught.append(number)

    try:
        with contextlib.ExitStack() as restored:
            for number in replaced:
                # Registered first: setting the handler may itself deliver a signal that arrived before.
                restored.callback(signal.signal, number, handlers[number])
                signal.signal(number, note)
            yield
    finally:
        for arrived in caught:
            signal.raise_signal(arrived)
