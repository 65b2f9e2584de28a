"""A poll with nothing new, and a whole Dagster run with nothing to do against the run of an empty asset.

    python -m benchmarks.idle [--rows 20000] [--polls 100] [--rounds 3]

The poll is what the sensor does every minute: requests, milliseconds of CPU, bytes of answers. The runs are
`dagster job execute` in processes of their own, from request to success: `rally_incremental` with a feed that has
nothing new, and one empty asset in a code location that has nothing else.
"""

from __future__ import annotations

from benchmarks.idle.measurement import measure, parser
from benchmarks.measuring.options import run_alone

if __name__ == "__main__":
    run_alone(parser(__doc__), measure)
