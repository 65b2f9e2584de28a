"""`dagster dev` tied to the process that started it: when our stdin closes, the services are ended in order.

A killed parent cannot say goodbye; the kernel closes its end of the pipe for it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings


def main() -> None:
    """Run Dagster's command line with our arguments in this process."""
    threading.Thread(target=_interrupt_at_end_of_stdin, daemon=True).start()
    from dagster import SupersessionWarning
    from dagster._cli import ENV_PREFIX, cli

    # `dagster dev` recommends `dg dev` at every start, a tool that this package does not need.
    warnings.simplefilter("ignore", SupersessionWarning)
    sys.argv[0] = "dagster"
    cli(auto_envvar_prefix=ENV_PREFIX)


def _interrupt_at_end_of_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
