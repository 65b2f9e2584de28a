"""Every part of the proof in one command: histories, crash points, mutants, kills and the soak, each as a process.

    python -m tests.proof --short            what CI runs, within 20 minutes on two cores
    python -m tests.proof --out proof.json   what runs at night: the long form; its figures go to the file

The exit code is 1 if any part found something. `python -m tests.proof --only kills` runs one part.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Part:
    """A command of its own, in a short and a long form."""

    name: str
    module: str
    short: tuple[str, ...]
    long: tuple[str, ...]


PARTS = (
    Part("histories of Rally", "tests.simulation", ("rally",), ("rally", "--histories", "20000")),
    Part("histories of Sell", "tests.simulation", ("sell",), ("sell", "--histories", "10000")),
    Part(
        "histories of SignalSmith",
        "tests.simulation",
        ("signalsmith",),
        ("signalsmith", "--histories", "5000"),
    ),
    Part("histories of imports", "tests.simulation", ("imports",), ("imports", "--histories", "5000")),
    Part(
        "each history twice",
        "tests.simulation",
        ("--histories", "10", "--twice"),
        ("--histories", "100", "--twice"),
    ),
    Part("crash points", "tests.simulation.crash_points", ("--pairs", "50"), ("--pairs", "500")),
    Part("mutants", "tests.simulation.mutants", (), ("--hunts", "5")),
    Part("kills on SQLite", "tests.simulation.kills", ("--kills", "40"), ("--kills", "300")),
    Part(
        "kills on PostgreSQL",
        "tests.simulation.kills",
        ("--kills", "20", "--database", "postgresql"),
        ("--kills", "200", "--database", "postgresql"),
    ),
    Part(
        "soak",
        "tests.simulation.soak",
        ("--days", "1", "--changes", "20000"),
        ("--days", "7", "--changes", "1000000"),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What a part came to."""

    part: Part
    arguments: tuple[str, ...]
    exit_code: int
    seconds: float
    figures: Any

    @property
    def command(self) -> str:
        return " ".join(("python -m", self.part.module, *self.arguments))

    def to_dict(self) -> dict[str, Any]:
        return {
            "part": self.part.name,
            "command": self.command,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 1),
            "figures": self.figures,
        }


def run_part(part: Part, arguments: tuple[str, ...]) -> Outcome:
    """Run the part's command to its end; what it prints is seen at once."""
    begun = time.monotonic()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, "-m", part.module, *arguments, "--out", str(file)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], check=False)
        figures = json.loads(file.read_text()) if file.exists() else None
    return Outcome(part, arguments, done.returncode, time.monotonic() - begun, figures)


@click.command()
@click.option("--short", is_flag=True, help="The form that CI runs.")
@click.option("--only", multiple=True, help="Only parts with this word in their name; may be repeated.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there, as JSON."
)
def main(short: bool, only: tuple[str, ...], out: Path | None) -> None:
    """Run every part of the proof."""
    console = Console()
    outcomes: list[Outcome] = []
    for part in PARTS:
        if only and not any(word in part.name for word in only):
            continue
        console.rule(part.name)
        outcomes.append(run_part(part, part.short if short else part.long))
        if out is not None:
            out.write_text(json.dumps([outcome.to_dict() for outcome in outcomes], indent=2))
    table = Table("part", "seconds", "result", "command", box=None)
    for outcome in outcomes:
        result = "passed" if outcome.exit_code == 0 else f"[bold]failed ({outcome.exit_code})"
        table.add_row(outcome.part.name, f"{outcome.seconds:.0f}", result, outcome.command)
    console.print(table)
    sys.exit(any(outcome.exit_code for outcome in outcomes))


if __name__ == "__main__":
    main()
