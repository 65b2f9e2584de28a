"""Work in forked processes: real processes without the cost of starting an interpreter."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def run_in_processes(number: int, work: Callable[[], None]) -> list[int]:
    """Run `work` in `number` processes at once; exit codes: 0 if it returned, 1 if it raised (printed)."""
    children = []
    for _ in range(number):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:  # noqa: BLE001 (a forked test process must not run on as a test)
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
