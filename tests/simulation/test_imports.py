"""Histories of imports: some good ones, one equal to itself, and one mutant."""

from __future__ import annotations

import pytest

from tests.simulation.runner import Task, play
from tests.simulation.script import load, play_safely, workplace

SYSTEM = load("imports")


def test_histories_end_with_every_row_counted_once() -> None:
    assert {seed: play(Task("imports", seed)).verdict.problems for seed in range(10)} == {
        seed: [] for seed in range(10)
    }


def test_the_same_script_leaves_the_same_digest() -> None:
    script = SYSTEM.generate(4)
    first, second = (play_safely(SYSTEM, script) for _ in range(2))
    assert first.digest
    assert first == second


def test_a_blind_resend_is_noticed() -> None:
    assert any(play(Task("imports", seed, "import-blind-resend")).verdict.problems for seed in range(20))


@pytest.mark.parametrize("name", sorted(SYSTEM.references))
def test_a_crashed_reference_import_ends_with_each_row_once(name: str) -> None:
    with workplace() as folder:
        assert SYSTEM.references[name](folder, (40, 15)).differences == ()
