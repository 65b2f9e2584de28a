"""Side-by-side measurements: this package, what people use today, and the least that is possible.

`python -m benchmarks` runs all of them; each is also one command, such as `python -m benchmarks.first_load`. They run
from a checkout with the extra `benchmarks` installed. Every contestant works in a process of its own, on the same
data and the same database; nothing leaves the machine.
"""
