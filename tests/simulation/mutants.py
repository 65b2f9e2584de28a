"""`python -m tests.simulation.mutants`: each known way to spoil the product must make the histories fail.

A mutant that survives its budget shows that the histories are too tame, which is a defect of theirs.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tests.simulation.__main__ import chosen
from tests.simulation.runner import Task, in_workers, play
from tests.simulation.script import Mutant, load


@dataclass(frozen=True)
class Hunt:
    """One mutant to be caught, with at most `budget` histories from `seed` on."""

    system: str
    mutant: str
    seed: int
    budget: int


@dataclass(frozen=True)
class Caught:
    """How a hunt ended: `histories` until the first failure, or None where the mutant survived."""

    hunt: Hunt
    histories: int | None
    seconds: float
    problem: str


def hunt_down(hunt: Hunt) -> Caught:
    """Play histories until one fails."""
    seconds = 0.0
    for number in range(hunt.budget):
        played = play(Task(hunt.system, hunt.seed + number, hunt.mutant))
        seconds += played.seconds
        if played.verdict.problems:
            return Caught(hunt, number + 1, seconds, played.verdict.problems[0])
    return Caught(hunt, None, seconds, "")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--system", "systems", multiple=True, help="Only mutants of this system; may be repeated.")
@click.option("--budget", type=int, help="Histories for each mutant; each has its own number otherwise.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first history.")
@click.option("--hunts", type=int, default=1, show_default=True, help="How often each one is to be caught.")
@click.option("--workers", type=int, default=os.cpu_count() or 1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures to this file, as JSON.")
def main(
    names: tuple[str, ...],
    systems: tuple[str, ...],
    budget: int | None,
    seed: int,
    hunts: int,
    workers: int,
    out: Path | None,
) -> None:
    """Hunt the mutants NAMES (all of them without a name); `--hunts 5` starts from five distant seeds."""
    wanted = [(name, mutant) for name, mutant in _all_mutants(systems) if not names or mutant.name in names]
    if not wanted:
        raise click.UsageError("there is no such mutant")
    tasks = [
        Hunt(name, mutant.name, seed + 1_000_000 * number, budget or mutant.budget)
        for (name, mutant), number in itertools.product(wanted, range(hunts))
    ]
    ended: dict[Hunt, Caught] = {}
    for caught in in_workers(hunt_down, tasks, workers=workers, at_once=1):
        ended[caught.hunt] = caught
        click.echo(f"{caught.hunt.mutant}: {caught.histories or 'survived'}", err=True)
    click.echo(f"{'system':<11} {'mutant':<34} {'histories':>24} {'CPU s':>7}  first problem")
    for name, mutant in wanted:
        _show(
            name, mutant, [ended[task] for task in tasks if (task.system, task.mutant) == (name, mutant.name)]
        )
    if out is not None:
        rows = [asdict(ended[task]) for task in tasks]
        out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    survivors = [task for task in tasks if ended[task].histories is None]
    click.echo(f"{len(wanted)} mutants, {len(survivors)} of {len(tasks)} hunts failed")
    sys.exit(bool(survivors))


def _all_mutants(systems: tuple[str, ...]) -> Iterator[tuple[str, Mutant]]:
    for name in chosen(systems):
        for mutant in load(name).mutants:
            yield name, mutant


def _show(system: str, mutant: Mutant, caught: list[Caught]) -> None:
    numbers = " ".join("survived" if one.histories is None else str(one.histories) for one in caught)
    problem = next((one.problem for one in caught if one.problem), mutant.description)
    seconds = sum(one.seconds for one in caught)
    click.echo(f"{system:<11} {mutant.name:<34} {numbers:>24} {seconds:>7.1f}  {problem[:80]}")


if __name__ == "__main__":
    main()
