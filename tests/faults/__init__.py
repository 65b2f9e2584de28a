"""The fault matrix: every fault that can be thought of, with the tests that play it. `python -m tests.faults`."""
