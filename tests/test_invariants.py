"""The list of invariants is true: each is checked where it says, and each has a test that breaks it."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from rally_pipeline.cli import main
from rally_pipeline.cli.failures import outcome_of
from rally_pipeline.invariants import INVARIANTS, NOT_HERE, InvariantViolation
from rally_pipeline.orchestration.diagnosis import diagnose

DESIGN = {
    f"{group}{number}"
    for group, count in {"SN": 5, "FD": 5, "SQ": 5, "RE": 6, "IM": 3}.items()
    for number in range(1, count + 1)
}
TESTS = Path(__file__).parent
PACKAGE = Path(inspect.getfile(main.callback)).parents[1]  # type: ignore[arg-type]


def test_every_invariant_of_the_design_is_listed_or_its_absence_is_explained() -> None:
    assert INVARIANTS.keys() | NOT_HERE.keys() == DESIGN
    assert not INVARIANTS.keys() & NOT_HERE.keys()


@pytest.mark.parametrize("name", INVARIANTS)
def test_an_invariant_is_checked_where_the_list_says(name: str) -> None:
    for place in INVARIANTS[name].checked_in:
        source = inspect.getsource(_resolve(place))
        assert re.search(rf'InvariantViolation\(\s*"{name}"', source), f"{place} does not raise {name}"


def test_no_check_is_missing_from_the_list() -> None:
    raised: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        raised |= set(re.findall(r'InvariantViolation\(\s*"(\w+)"', path.read_text(encoding="utf-8")))
    assert raised == INVARIANTS.keys()


def test_every_invariant_is_broken_on_purpose_by_a_test() -> None:
    broken: set[str] = set()
    for path in TESTS.rglob("test_invariants.py"):
        broken |= set(re.findall(r'@pytest\.mark\.invariant\("(\w+)"\)', path.read_text(encoding="utf-8")))
    assert broken == INVARIANTS.keys()


@pytest.mark.parametrize("name", INVARIANTS)
def test_a_violation_tells_a_person_what_to_do(name: str) -> None:
    error = InvariantViolation(name, "three rows of something")
    for part in (
        f"invariant {name} does not hold",
        "three rows of something",
        "Nothing of this step was written",
    ):
        assert part in str(error)
    assert "please report" in str(error)
    program, command = INVARIANTS[name].command.split()
    assert program == "rally-pipeline"
    assert command in main.commands
    diagnosis = diagnose(error)
    assert diagnosis is not None
    assert not diagnosis.repeatable
    assert outcome_of(error) == (1, str(error))


def _resolve(place: str) -> object:
    parts = place.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise LookupError(place)
