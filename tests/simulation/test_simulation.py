"""The simulation itself: some histories, the same digest twice, and a planted defect that is caught and made short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.runner import Task, play, spoiled
from tests.simulation.script import Event, Script, available, load, play_safely, workplace
from tests.simulation.shrinking import kinds_of, shrink

HISTORIES = 12


def test_a_script_survives_being_written_down_and_read_again() -> None:
    for name in available():
        script = load(name).generate(3)
        assert Script.parse(script.text()) == script
        assert Script.parse(f"# a remark\n\n{script.text()}") == script


def test_a_script_with_an_unknown_line_is_refused() -> None:
    with pytest.raises(ValueError, match="not a line of a script"):
        Script.parse("system rally\nseed 1\nhappen something")


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_a_random_history_of_rally_ends_equal(seed: int) -> None:
    assert play(Task("rally", seed)).verdict.problems == []


@pytest.mark.parametrize("seed", range(HISTORIES, HISTORIES + 3))
def test_a_history_leaves_the_same_digest_every_time(seed: int) -> None:
    first, second = play(Task("rally", seed)).verdict, play(Task("rally", seed)).verdict
    assert first.digest == second.digest
    assert first.requests == second.requests > 0


def test_an_exception_of_the_product_is_the_verdict_of_a_history() -> None:
    verdict = play_safely(load("rally"), Script("rally", 1, {}, (Event("no_such_event"),)))
    assert "no_such_event" in verdict.problems[0]


def test_a_planted_defect_is_caught_and_shrunk_to_a_short_script() -> None:
    system = load("rally")
    with spoiled(system, "no-overlap"):
        found = next(
            script
            for script in map(system.generate, range(2, 100))
            if any("missing" in problem for problem in play_safely(system, script).problems)
        )
        kinds = kinds_of(play_safely(system, found).problems)
        short = shrink(
            found,
            lambda script: bool(kinds & kinds_of(play_safely(system, script).problems)),
            defaults=system.defaults,
            plays=40,
        )
        assert play_safely(system, short).problems != []
    assert len(short.events) <= min(8, len(found.events))
    assert play_safely(system, short).problems == []


def test_shrinking_keeps_just_the_events_that_the_failure_needs() -> None:
    events = tuple(Event("step", {"number": number}) for number in range(40))
    script = Script("none", 1, {"loud": True, "needed": 3}, events)

    def fails(tried: Script) -> bool:
        left = {event.arguments["number"] for event in tried.events}
        return {7, 31} <= left and tried.settings["needed"] == 3

    short = shrink(script, fails, defaults={"loud": False, "needed": 0})
    assert [event.arguments["number"] for event in short.events] == [7, 31]
    assert short.settings == {"loud": False, "needed": 3}


@pytest.mark.parametrize("name", ["first load", "catch-up"])
def test_a_reference_sync_survives_a_crash_and_another_one_in_its_recovery(name: str) -> None:
    reference = load("rally").references[name]
    with workplace() as folder:
        whole = reference(folder, ())
    assert whole.differences == ()
    assert len(whole.names) == whole.steps[0] > 40
    with workplace() as folder:
        crashed = reference(folder, (whole.steps[0] // 2, 7))
    assert crashed.steps[:2] == (whole.steps[0] // 2, 7)
    assert crashed.differences == ()


def test_a_folder_to_work_in_is_gone_afterwards() -> None:
    with workplace() as folder:
        (folder / "file").write_text("x", encoding="utf-8")
    assert not Path(folder).exists()
