"""Rally under simulation: full passes, the change feed, and looks, against a source that misbehaves."""

from __future__ import annotations

from tests.simulation.rally.generator import generate
from tests.simulation.rally.history import play
from tests.simulation.rally.mutants import MUTANTS
from tests.simulation.rally.references import REFERENCES
from tests.simulation.rally.settings import DULL
from tests.simulation.script import System

SYSTEM = System("rally", generate, play, DULL, histories=2000, mutants=MUTANTS, references=REFERENCES)
