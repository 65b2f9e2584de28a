"""A simulated account in a process of its own: `python -m benchmarks.sell_drain.account ITEMS PAGE_SIZE`.

It prints its environment as JSON. Each line on standard input is answered with the counts of requests and of
acknowledgements since the line before; it serves until its standard input ends.
"""

from __future__ import annotations

import json
import sys

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer


def main(items: int, page_size: int) -> None:
    """Serve; rate limits are off."""
    options = {
        "records": items,
        "page_size": page_size,
        "limit_per_second": None,
        "limit_per_hour": None,
    }
    sandbox = Sandbox(seed=1, apis=["sell"], clock=SandboxClock.running(), sell=options)
    with SandboxServer(sandbox) as server:
        _say(server.environment())
        for _ in sys.stdin:
            log = list(sandbox.log)
            sandbox.log.clear()
            _say({"requests": len(log), "acks": sum(entry.path.endswith("/ack") for entry in log)})


def _say(answer: dict[str, str] | dict[str, int]) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
