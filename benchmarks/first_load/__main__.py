"""First load, unchanged re-read and 2,000 changes, on SQLite and PostgreSQL: this package, the floor, and peers.

    python -m benchmarks.first_load [--rows 200000] [--page-size 1000,100] [--database sqlite,postgresql]
                                    [--only ours,floor,…] [--rounds 3] [--limit 420]

Contestants: `floor` (requests, orjson, bulk upsert, rows and cursor committed every 10,000 rows), `look-first` (the
floor, that decodes only what is new), `ours` (the full engine), `dlt` (rest_api, merge, defaults), `dlt-tuned` (the
best settings found), `dlt-arrow` (fed with Arrow tables by a loop of its own), `pandas` (`to_sql`, which can append
or replace only). Every contestant has a process and a database of its own for each round.

For what changed, `ours` reads the change feed and settles its marks, deletes included. About two seconds of that are
waiting: a look counts as evidence once the server's clock, which answers show to the second, has certainly passed the
hint (the staleness bound is 0 here). `ours-updated` does what the others call incremental, and waits for nothing.
"""

from __future__ import annotations

from benchmarks.first_load.measurement import measure, parser
from benchmarks.measuring.options import run_alone

if __name__ == "__main__":
    run_alone(parser(__doc__), measure)
