"""A command line tied to the process that started it: when our stdin closes, everything that it started is ended.

A killed parent cannot say goodbye; the kernel closes its end of the pipe for it. What would stay otherwise are runs
that ask a sandbox which is gone, for minutes, and the code server that waits for them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping

from rally_pipeline.cli.dev.children import GRACE_SECONDS, kill_session

_cut = threading.Event()
"""Set when the parent is gone."""


def main() -> None:
    """Run the program that the first argument names, with the arguments behind it, in this process."""
    threading.Thread(target=_watch_stdin, daemon=True).start()
    program = sys.argv.pop(1)
    sys.argv[0] = program
    try:
        _PROGRAMS[program]()
    finally:
        if _cut.is_set():
            _end_session()


def _run_dagster() -> None:
    from dagster import SupersessionWarning
    from dagster._cli import ENV_PREFIX, cli

    # `dagster dev` recommends `dg dev` at every start, a tool that this package does not need.
    warnings.simplefilter("ignore", SupersessionWarning)
    cli(auto_envvar_prefix=ENV_PREFIX)


def _run_ours() -> None:
    from rally_pipeline.cli import main as run

    run()


_PROGRAMS: Mapping[str, Callable[[], None]] = {"dagster": _run_dagster, "rally-pipeline": _run_ours}


def _watch_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    _cut.set()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE_SECONDS)
    _end_session()


def _end_session() -> None:
    """What the parent would do now: end whatever is left."""
    kill_session(os.getpid())
    os._exit(1)


if __name__ == "__main__":
    main()
