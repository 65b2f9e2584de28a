"""Loading the code location: bare, and with 1,000 SignalSmith syncs, against `import dagster` alone.

    python -m benchmarks.code_location [--syncs 1000] [--rounds 5]

Each load is what a code server or a run's process does first: import the definitions, build the repository.
"""

from __future__ import annotations

from benchmarks.code_location.measurement import measure, parser
from benchmarks.measuring.options import run_alone

if __name__ == "__main__":
    run_alone(parser(__doc__), measure)
