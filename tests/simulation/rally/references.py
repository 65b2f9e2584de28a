"""The reference syncs of Rally, whose every step is crashed at once: a first load, a catch-up, and a second load.

Each is small, for it is lived through once for every step that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rally_pipeline.rally.entities import Entity
from tests.rally.world import Crash
from tests.simulation.rally.process import Process
from tests.simulation.rally.settings import DULL, policy_of
from tests.simulation.rally.source import Source
from tests.simulation.script import Passage, Reference
from tests.simulation.storage import quick_storage

_SHOWN = 5
_SETTINGS: dict[str, Any] = {
    **DULL,
    "records": {"contacts": 44, "deals": 30},
    "list_cap": 5,
    "feed_cap": 5,
    "feed_floor": 4,
    "list_order": "updatedAt",
    "overlap_seconds": 20,
    "staleness_seconds": 3,
    "lag_seconds": 3,
}
_CHANGES = (
    {"kind": "update", "entity": "contacts", "n": 14, "over": 9, "seed": 1},
    {"kind": "insert", "entity": "contacts", "n": 6, "over": 3, "seed": 2},
    {"kind": "delete", "entity": "contacts", "n": 5, "over": 3, "seed": 3},
    {"kind": "reborn", "entity": "deals", "n": 5, "over": 4, "seed": 4},
    {"kind": "update", "entity": "deals", "n": 9, "over": 5, "seed": 5},
)


class _Life:
    """A series of processes on one warehouse, each of which may have its end set."""

    def __init__(self, folder: Path, settings: dict[str, Any], crashes: Sequence[int]) -> None:
        self.source = Source(7, settings)
        self._crashes = list(crashes)
        self._left: int | None = None
        self._names: list[list[str]] = []
        self.process = Process(
            f"sqlite:///{folder}/warehouse.db",
            self.source.sandbox,
            hook=self._at_step,
            entities=[Entity(name) for name in self.source.entities],
            seed=7,
            **policy_of(settings),
        )

    def _at_step(self, process: Process, name: str) -> None:
        if self._names:
            self._names[-1].append(name)
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._left = None
                process.die(name)

    def run(self, sync: Callable[[], None]) -> None:
        """Process after process, until one comes to the end of the sync."""
        while True:
            self._names.append([])
            self._left = self._crashes.pop(0) if self._crashes else None
            try:
                sync()
            except Crash:
                self._left = None
                self.process.restart()
            else:
                self._left = None
                return

    def cycle(self) -> None:
        for part in self.process.parts_of_cycle():
            part()

    def passage(self) -> Passage:
        """One more run when time has passed, then the comparison."""
        steps = tuple(len(names) for names in self._names)
        names = tuple(self._names[0])
        self._names = []
        self.source.sandbox.clock.advance(10)
        self.cycle()
        wrong = [*self.process.differences(), *(f"mark left: {mark[:2]}" for mark in self.process.marks())]
        self.process.close()
        return Passage(steps, names, tuple(wrong[:_SHOWN]))


def first_load(folder: Path, crashes: Sequence[int]) -> Passage:
    """An empty warehouse: full passes, the feed's first read, no look."""
    with quick_storage(7):
        life = _Life(folder, _SETTINGS, crashes)
        life.run(life.cycle)
        return life.passage()


def _catch_up(folder: Path, crashes: Sequence[int], **settings: Any) -> Passage:
    with quick_storage(7):
        life = _Life(folder, {**_SETTINGS, **settings}, ())
        life.cycle()
        life._crashes = list(crashes)
        life.source.sandbox.clock.advance(30)
        for change in _CHANGES:
            life.source.change(**change)  # type: ignore[arg-type]
            life.source.sandbox.clock.advance(1)
        life.run(life.cycle)
        return life.passage()


def catch_up(folder: Path, crashes: Sequence[int]) -> Passage:
    """Changes of every kind: the feed, then looks by list pages and single reads."""
    return _catch_up(folder, crashes)


def soft_deletes(folder: Path, crashes: Sequence[int]) -> Passage:
    """The same, where deletes leave rows behind and every look is a single read."""
    return _catch_up(folder, crashes, delete_mode="soft", list_look_minimum=1000)


def second_load(folder: Path, crashes: Sequence[int]) -> Passage:
    """A full pass over rows that are stored, some of them gone by now, with the feed read only afterwards."""
    with quick_storage(7):
        life = _Life(folder, _SETTINGS, ())
        life.cycle()
        life._crashes = list(crashes)
        for change in _CHANGES:
            life.source.change(**change)  # type: ignore[arg-type]
        life.source.sandbox.clock.advance(4)

        def load_again() -> None:
            for name in life.source.entities:
                life.process.mirror.extract(Entity(name))
            life.cycle()

        life.run(load_again)
        return life.passage()


REFERENCES: dict[str, Reference] = {
    "first load": first_load,
    "catch-up": catch_up,
    "soft deletes": soft_deletes,
    "second load": second_load,
}
