"""Random histories of the drain: none may end different from the account.

`RALLY_TEST_HISTORIES=2000 pytest tests/sell/test_histories.py` plays that many; each failure names its seed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.sell.histories import History

HISTORIES = int(os.environ.get("RALLY_TEST_HISTORIES", "12"))
FIRST_SEED = int(os.environ.get("RALLY_TEST_FIRST_SEED", "0"))


def test_no_history_diverges(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    diverged: dict[int, list[str]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
            problems = History(seed, Path(folder)).play()
        if problems:
            diverged[seed] = problems[:5]
    assert diverged == {}
