"""Contestants for the tests of the measurement itself."""

from __future__ import annotations

import os
import time


def work(*, megabytes: int) -> dict[str, bool]:
    """Fill memory, and tell whether the process leads its own session."""
    held = bytearray(megabytes * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    return {"alone": os.getsid(0) == os.getpid()}


def never_end() -> None:
    """Longer than any limit."""
    time.sleep(600)


def fail() -> None:
    """At once."""
    raise LookupError("no table")
