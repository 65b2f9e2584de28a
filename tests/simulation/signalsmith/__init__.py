"""Histories of triggers: ticks, retries and requests for runs of one sync, while answers get lost and processes die."""

from __future__ import annotations

from tests.simulation.script import System
from tests.simulation.signalsmith.generator import DEFAULTS, generate
from tests.simulation.signalsmith.history import play
from tests.simulation.signalsmith.mutants import MUTANTS
from tests.simulation.signalsmith.references import REFERENCES

SYSTEM = System(
    name="signalsmith",
    generate=generate,
    play=play,
    defaults=DEFAULTS,
    histories=300,
    mutants=MUTANTS,
    references=REFERENCES,
)
