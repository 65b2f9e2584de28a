"""Histories of the Sell queue: an account that changes, a queue that misbehaves, processes that die; then calm."""

from __future__ import annotations

from tests.simulation.script import System
from tests.simulation.sell.generator import DEFAULTS, generate
from tests.simulation.sell.history import play
from tests.simulation.sell.mutants import MUTANTS
from tests.simulation.sell.references import REFERENCES

SYSTEM = System(
    name="sell",
    generate=generate,
    play=play,
    defaults=DEFAULTS,
    histories=1000,
    mutants=MUTANTS,
    references=REFERENCES,
)
