"""Series of samples, the goals they are held against, and how both are shown: a table for people, JSON for machines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring.contestant import Sample
from benchmarks.measuring.machine import Machine

_COLUMNS = ("wall s", "spread", "CPU s", "peak MB", "work MB", "requests", "rounds")


@dataclass
class Series:
    """What one contestant did in one case, round by round."""

    case: str
    contestant: str
    samples: list[Sample] = field(default_factory=list)
    note: str = ""
    """Why there is no sample, or fewer than rounds."""
    limit: float | None = None
    """The seconds after which it was ended."""

    @property
    def finished(self) -> bool:
        return bool(self.samples)

    def median(self, value: Callable[[Sample], float]) -> float:
        """Of one figure over the rounds."""
        return statistics.median(value(sample) for sample in self.samples)

    def spread(self, value: Callable[[Sample], float]) -> tuple[float, float]:
        """Least and most of one figure over the rounds."""
        values = [value(sample) for sample in self.samples]
        return min(values), max(values)

    @property
    def wall(self) -> float:
        return self.median(lambda sample: sample.wall)

    @property
    def cpu(self) -> float:
        """Of the contestant and of the database server together."""
        return self.median(lambda sample: sample.cpu + sample.server_cpu)

    @property
    def requests(self) -> int:
        """The most of any round."""
        return max(sample.requests for sample in self.samples)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        made: dict[str, Any] = {"case": self.case, "contestant": self.contestant, "note": self.note}
        if self.limit is not None:
            made["ended_after"] = self.limit
        if self.samples:
            made |= {
                "rounds": len(self.samples),
                "wall": self.wall,
                "wall_spread": self.spread(lambda sample: sample.wall),
                "cpu": self.cpu,
                "peak_mb": self.median(lambda sample: sample.peak_mb),
                "work_mb": self.median(lambda sample: sample.work_mb),
                "requests": self.requests,
                "facts": dict(self.samples[-1].facts),
            }
        return made


@dataclass(frozen=True)
class Goal:
    """One figure beside the bound that it should keep. `value` is None where it could not be measured."""

    text: str
    value: float | None
    bound: float
    at_most: bool
    unit: str = "×"
    floor_only: bool = False
    """The value is a lower bound, since the peer was not finished."""
    cpu: float | None = None
    """The same figure by CPU seconds: what holds on a busy machine too."""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def line(self) -> tuple[str, ...]:
        """Text, value, the same by CPU seconds, bound, verdict."""
        sign = "≤" if self.at_most else "≥"
        shown = (
            "-"
            if self.value is None
            else f"{'> ' if self.floor_only else ''}{_figure(self.value)} {self.unit}"
        )
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        by_cpu = "" if self.cpu is None else f"{_figure(self.cpu)} {self.unit}"
        return self.text, shown, by_cpu, f"{sign} {_figure(self.bound)} {self.unit}", verdict

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "goal": self.text,
            "value": self.value,
            "bound": self.bound,
            "at_most": self.at_most,
            "unit": self.unit,
            "lower_bound_only": self.floor_only,
            "by_cpu": self.cpu,
            "met": self.met,
        }


@dataclass
class Report:
    """One benchmark's outcome."""

    benchmark: str
    settings: dict[str, Any]
    machine: Machine
    series: list[Series] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    shown: tuple[str, ...] = ()
    """Facts that have a column of their own."""

    def find(self, case: str, contestant: str) -> Series | None:
        """The series, if it has a sample."""
        found = [one for one in self.series if (one.case, one.contestant) == (case, contestant)]
        return found[0] if found and found[0].finished else None

    def ratio(
        self, case: str, numerator: str, denominator: str, bound: float, *, at_most: bool
    ) -> list[Goal]:
        """Wall seconds of the one over those of the other; nothing where one of them did not take part.

        For a numerator that was ended at its time limit, the limit counts: the ratio is at least that.
        """
        above, below = self.find(case, numerator), self.find(case, denominator)
        if below is None:
            return []
        text = f"{case}: {numerator} / {denominator}"
        if above is not None:
            by_cpu = above.cpu / below.cpu if below.cpu else None
            return [Goal(text, above.wall / below.wall, bound, at_most, cpu=by_cpu)]
        ended = [one.limit for one in self.series if (one.case, one.contestant) == (case, numerator)]
        if not ended or ended[0] is None:
            return []
        return [Goal(text, ended[0] / below.wall, bound, at_most, floor_only=True)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "benchmark": self.benchmark,
            "settings": self.settings,
            "machine": self.machine.to_dict(),
            "series": [one.to_dict() for one in self.series],
            "goals": [goal.to_dict() for goal in self.goals],
        }

    def show(self) -> str:
        """For a person."""
        shown = [f"## {self.benchmark}", self.machine.line(), str(self.settings), ""]
        shown.append(table(("case", "contestant", *_COLUMNS, *self.shown), map(self._line, self.series)))
        if self.goals:
            shown += ["", show_goals(self.goals)]
        return "\n".join(shown)

    def _line(self, one: Series) -> tuple[str, ...]:
        if not one.finished:
            return one.case, one.contestant, one.note, *[""] * (len(_COLUMNS) - 1 + len(self.shown))
        figures = [
            f"{one.wall:.3f}",
            "-".join(f"{value:.3f}" for value in one.spread(lambda sample: sample.wall)),
            f"{one.cpu:.2f}" if one.cpu else "",
            *(
                f"{value:.0f}" if value else ""
                for value in (one.median(lambda s: s.peak_mb), one.median(lambda s: s.work_mb))
            ),
            str(one.requests or ""),
            f"{len(one.samples)}{f' ({one.note})' if one.note else ''}",
        ]
        facts = one.samples[-1].facts
        return one.case, one.contestant, *figures, *(str(facts.get(name, "")) for name in self.shown)


def show_goals(goals: Iterable[Goal]) -> str:
    """The table of ratios."""
    return table(("goal", "measured", "by CPU", "bound", ""), (goal.line() for goal in goals))


def table(header: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table whose columns are aligned."""
    rows = [header, *lines]
    widths = [max(len(row[place]) for row in rows) for place in range(len(header))]
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(shown)


def write_json(reports: Iterable[Report], file: Path) -> None:
    """All reports as one JSON document."""
    file.write_text(json.dumps([report.to_dict() for report in reports], indent=1) + "\n")


def _figure(value: float) -> str:
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
