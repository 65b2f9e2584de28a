"""Histories of imports: some good ones, one equal to itself, and one mutant."""

from __future__ import annotations

import pytest

from tests.simulation.runner import Task, play
from tests.simulation.script import Script, load, play_safely, workplace

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


def test_equal_rows_of_an_upload_long_before_are_not_taken_for_those_of_a_lost_answer() -> None:
    """Found by seed 10361: an upload settled for longer than the overlap, between two with equal rows."""
    script = Script.parse(
        """
        system imports
        seed 10361
        set lag_seconds 20
        do file {"bad": 1, "entity": "activities", "known": 0, "repeated": 4, "rows": 9, "seed": 921102222}
        do fault {"after": 2, "fault": "cut_body", "path": "*/import", "times": 1}
        do lose {"applied": "before", "late": 0, "status": 0, "uploads": [4]}
        do run
        """
    )
    assert play_safely(SYSTEM, script).problems == []
