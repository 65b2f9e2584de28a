"""The cost of one more record at 10^4, 10^5 and 10^6 records, and of a change at feed logs of 10^4 to 10^6 entries.

    python -m benchmarks.growth [--sizes 10000,100000,1000000] [--logs 10000,100000,1000000]
                                [--database sqlite,postgresql] [--rounds 1]

The cost of one more record is the difference between two sizes, by CPU seconds (client and database server), divided
by the difference of their records: what every run costs once is not in it. Changes: 10,000 changes of 8,000 records are
read and settled beside a log that already holds so many entries.
"""

from __future__ import annotations

from benchmarks.growth.measurement import measure, parser
from benchmarks.measuring.options import run_alone

if __name__ == "__main__":
    run_alone(parser(__doc__), measure)
