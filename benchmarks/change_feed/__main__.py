"""10,000 changes over 8,000 of 200,000 records: this package, the documented loop, and the least that is possible.

    python -m benchmarks.change_feed [--rows 200000] [--changes 10000] [--changed 8000]
                                     [--database sqlite,postgresql] [--latency 0.2] [--rounds 3]
                                     [--sandbox-rows 20000]

The first part counts requests and seconds against a server that costs next to nothing and has no limit. `documented`
is the loop of the API's documentation (a page of changes, then one GET for each); `least` reads the pages of the feed
and the pages of changed records, and nothing else. The second part plays the same changes on the sandbox with the
API's limit of 1,000 requests a minute in force, on a virtual clock, each request taking `--latency` seconds: the time
until everything is in the warehouse.
"""

from __future__ import annotations

from benchmarks.change_feed.measurement import measure, parser
from benchmarks.measuring.options import run_alone

if __name__ == "__main__":
    run_alone(parser(__doc__), measure)
