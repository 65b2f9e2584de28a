"""Proof by simulation: the real engines against the sandbox, in process, on a virtual clock, with random histories.

- `script`: what a history is, as data, and what a system under simulation offers.
- `python -m tests.simulation`: plays histories, and shrinks those that fail.
- `python -m tests.simulation.mutants`: spoils the product in known ways; the histories have to notice.
- `python -m tests.simulation.crash_points`: crashes the reference syncs at every step.
- `python -m tests.simulation.kills`: kills real processes at random moments, against a sandbox behind a port.

Each system is a module or package of its own name (`rally`, `sell`, `signalsmith`, `imports`) with a `SYSTEM`.
"""

import logging

# Waits in virtual time are no news.
logging.getLogger("rally_pipeline").addHandler(logging.NullHandler())
