"""Draining the Sell queue: this package against the official client `basecrm`, with the same database writes.

    python -m benchmarks.sell_drain [--items 100000] [--page-size 100] [--only ours,pagewise,itemwise] [--limit 420]
                                    [--database sqlite,postgresql]

Each client drains the same simulated account over HTTP (a server in a process of its own, rate limits off) into a
fresh warehouse with durable commits:

- `ours`: `SellMirror.drain`.
- `pagewise`: basecrm's service calls (start, fetch, ack), and each page written by this package's own page writer in
  one transaction before its acknowledgement. The most favourable way to use basecrm; it has to be built by hand.
- `itemwise`: basecrm's `Sync.fetch(callback)` as its documentation shows it. It acknowledges when the callbacks of a
  page have returned and has no hook between pages, so a callback that must not lose an item commits it at once.
"""

from __future__ import annotations

from benchmarks.measuring.options import run_alone
from benchmarks.sell_drain.measurement import measure, parser

if __name__ == "__main__":
    run_alone(parser(__doc__), measure)
