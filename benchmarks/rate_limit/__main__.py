"""1, 3 and 6 processes of one tenant: how much of the limit they use, how many requests are refused, how fair it is.

    python -m benchmarks.rate_limit [--processes 1,3,6] [--limit 1000] [--window 10] [--windows 3]

The sandbox, over real sockets, allows `--limit` requests (the API's own) in each window, which is shorter than the
API's minute so that the measurement ends. The processes do not talk to each other. `plain` is a loop that asks until
it is refused and then sleeps until the reset that the server names. Fairness is Jain's index over the processes'
shares: 1 where all got the same, 1/n where one got everything.
"""

from __future__ import annotations

from benchmarks.measuring.options import run_alone
from benchmarks.rate_limit.measurement import measure, parser

if __name__ == "__main__":
    run_alone(parser(__doc__), measure)
