"""Histories of the Sell queue: some good ones, one equal to itself, and one mutant."""

from __future__ import annotations

import pytest

from tests.simulation.runner import Task, play
from tests.simulation.script import Event, Script, load, play_safely, workplace

SYSTEM = load("sell")


def test_histories_end_equal_to_the_account() -> None:
    assert {seed: play(Task("sell", seed)).verdict.problems for seed in range(10)} == {
        seed: [] for seed in range(10)
    }


def test_the_same_script_leaves_the_same_digest() -> None:
    script = SYSTEM.generate(4)
    first, second = (play_safely(SYSTEM, script) for _ in range(2))
    assert first.digest
    assert first == second
    assert SYSTEM.generate(4) == Script.parse(script.text())


@pytest.mark.parametrize("mutant", ["ack-before-commit", "go-on-after-failed-commit"])
def test_a_spoiled_drain_is_noticed(mutant: str) -> None:
    assert any(play(Task("sell", seed, mutant)).verdict.problems for seed in range(10))


@pytest.mark.parametrize("crashes", [(30,), (75, 20)])
def test_a_crashed_reference_sync_ends_equal(crashes: tuple[int, ...]) -> None:
    with workplace() as folder:
        passage = SYSTEM.references["new-device"](folder, crashes)
    assert passage.differences == ()
    assert len(passage.steps) == len(crashes) + 1


def test_a_stage_that_went_before_it_came_by_itself_goes() -> None:
    """Found by seed 481: its pipeline had shown it, and nobody announces the end of what never came."""
    events = (
        Event("drain", {"crash": 35}),
        Event("configure", {"count": 1, "seed": 4283504240}),
    )
    script = Script("sell", 481, {"objects": 33, "shuffle": True}, events)
    assert play_safely(SYSTEM, script).problems == []
