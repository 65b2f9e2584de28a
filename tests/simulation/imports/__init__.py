"""Histories of imports: files, lost answers, wrong counts, other writers, processes that die between two uploads."""

from __future__ import annotations

from tests.simulation.imports.generator import DEFAULTS, generate
from tests.simulation.imports.history import play
from tests.simulation.imports.mutants import MUTANTS
from tests.simulation.imports.references import REFERENCES
from tests.simulation.script import System

SYSTEM = System(
    name="imports",
    generate=generate,
    play=play,
    defaults=DEFAULTS,
    histories=200,
    mutants=MUTANTS,
    references=REFERENCES,
)
