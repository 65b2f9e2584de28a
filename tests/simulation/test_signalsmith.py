"""Histories of triggers: some good ones, one equal to itself, one mutant, and those that once failed."""

from __future__ import annotations

import pytest

from tests.simulation.runner import Task, play
from tests.simulation.script import Script, load, play_safely, workplace

SYSTEM = load("signalsmith")

FAILED_ONCE = {
    "stopped between intent and trigger for longer than its lease, it sent all the same": """
        seed 5
        do tick {"late": 0}
        do twice {"at": 11, "pause": 500, "same": true}
    """,
    "a run that the list does not show yet was not attached to": """
        seed 107
        set list_lag_seconds 20
        set run_order "shuffled"
        do manual {}
        do tick {"late": 0}
        do twice {"at": 0, "pause": 0, "same": true}
        do twice {"at": 13, "pause": 500, "same": false}
        do twice {"at": 23, "pause": 0, "same": false}
    """,
    "a look from before the settle time was over counted as the last one": """
        seed 183
        set list_lag_seconds 20
        do tick {"late": 0}
        do fault {"after": 0, "fault": "applied_500", "path": "*/trigger", "times": 1}
        do twice {"at": 21, "pause": 0, "same": true}
    """,
    "a run of somebody else was adopted because ours was not in the list yet": """
        seed 534
        set list_lag_seconds 5
        do overtaken {"by": "somebody", "fault": "applied_500", "seconds": 2}
    """,
    "a run of another request whose answer was lost, and that no list shows yet, was run beside": """
        seed 93
        set schedule "*/10 * * * *"
        set scheduler false
        set busy "queue"
        set list_lag_seconds 20
        set queue_seconds 2
        set run_seconds 30
        do manual {}
        do tick {"crash": 34, "late": 0}
        do manual {}
    """,
    "a run that another request had attached to was not found again by its own": """
        seed 368
        do tick {"crash": 3, "late": 0}
        do manual {"crash": 14}
    """,
}


def test_histories_have_one_run_per_request() -> None:
    assert {seed: play(Task("signalsmith", seed)).verdict.problems for seed in range(10)} == {
        seed: [] for seed in range(10)
    }


def test_the_same_script_leaves_the_same_digest() -> None:
    script = SYSTEM.generate(4)
    first, second = (play_safely(SYSTEM, script) for _ in range(2))
    assert first.digest
    assert first == second


def test_a_tick_taken_for_two_requests_is_noticed() -> None:
    assert any(play(Task("signalsmith", seed, "tick-key-ignored")).verdict.problems for seed in range(10))


@pytest.mark.parametrize("defect", FAILED_ONCE)
def test_what_failed_once_stays_right(defect: str) -> None:
    script = Script.parse(f"system signalsmith\n{FAILED_ONCE[defect]}")
    assert play_safely(SYSTEM, script).problems == []


@pytest.mark.parametrize("name", sorted(SYSTEM.references))
def test_a_crashed_reference_trigger_ends_with_one_run_each(name: str) -> None:
    with workplace() as folder:
        assert SYSTEM.references[name](folder, (14, 3)).differences == ()
