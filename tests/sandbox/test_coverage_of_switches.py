"""No switch and no fault without a test that names it."""

from __future__ import annotations

from pathlib import Path

from rally_pipeline.sandbox.faults import FAULTS
from rally_pipeline.sandbox.rally import RallySwitches

TESTS = [path for path in sorted(Path(__file__).parent.glob("test_*.py")) if path != Path(__file__)]
TEXT = "\n".join(path.read_text() for path in TESTS)


def test_every_switch_is_named_by_a_test() -> None:
    assert [name for name in RallySwitches.__struct_fields__ if name not in TEXT] == []


def test_every_fault_is_named_by_a_test() -> None:
    assert [name for name in FAULTS if name not in TEXT] == []
