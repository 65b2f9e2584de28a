"""`python -m tests.simulation.crash_points`: the reference syncs, crashed at every step they have.

Every network call and every commit, before and after. After each crash a new process runs the same sync again, then one
more run; the warehouse has to equal the truth. Random pairs add a crash inside the recovery from the first one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click

from tests.simulation.__main__ import chosen
from tests.simulation.runner import in_workers
from tests.simulation.script import load, workplace

_SHOWN = 10


@dataclass(frozen=True)
class Point:
    """One passage of a reference sync, with the steps at which its processes end."""

    system: str
    reference: str
    crashes: tuple[int, ...]


@dataclass(frozen=True)
class Reached:
    """What a passage came to."""

    point: Point
    steps: tuple[int, ...]
    names: tuple[str, ...]
    differences: tuple[str, ...]
    seconds: float


def reach(point: Point) -> Reached:
    """Live through one passage."""
    begun = time.process_time()
    with workplace() as folder:
        passage = load(point.system).references[point.reference](folder, point.crashes)
    seconds = time.process_time() - begun
    names = passage.names if not point.crashes else ()
    return Reached(point, passage.steps, names, passage.differences, seconds)


def single_points(system: str) -> Iterator[Point]:
    """Each step of each reference sync of the system."""
    for name in load(system).references:
        whole = reach(Point(system, name, ()))
        if whole.differences:
            raise click.ClickException(f"{system} {name} fails without a crash: {whole.differences[0]}")
        yield from (Point(system, name, (number,)) for number in range(1, whole.steps[0] + 1))


def random_pairs(points: list[Point], count: int, seed: int) -> list[Point]:
    """A first crash anywhere, and a second one in what follows."""
    dice = Random(seed)
    firsts = [dice.choice(points) for _ in range(count)] if points else []
    return [
        Point(point.system, point.reference, (*point.crashes, dice.randrange(1, 2 * len(points))))
        if dice.random() < 0.2
        else Point(point.system, point.reference, (*point.crashes, dice.randrange(1, 60)))
        for point in firsts
    ]


@click.command()
@click.argument("systems", nargs=-1)
@click.option(
    "--pairs", type=int, default=100, show_default=True, help="Random double crashes of each system."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the pairs.")
@click.option("--workers", type=int, default=os.cpu_count() or 1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures to this file, as JSON.")
def main(systems: tuple[str, ...], pairs: int, seed: int, workers: int, out: Path | None) -> None:
    """Crash the reference syncs of SYSTEMS (all of them without a name) at every step."""
    figures: dict[str, dict[str, object]] = {}
    click.echo(f"{'system':<12} {'points':>7} {'pairs':>6} {'differ':>7} {'CPU s':>7}")
    for name in chosen(systems):
        points = list(single_points(name))
        if not points:
            continue
        doubles = random_pairs(points, pairs, seed)
        reached = list(in_workers(reach, [*points, *doubles], workers=workers))
        bad = [one for one in reached if one.differences]
        seconds = sum(one.seconds for one in reached)
        click.echo(f"{name:<12} {len(points):>7} {len(doubles):>6} {len(bad):>7} {seconds:>7.1f}")
        for one in bad[:_SHOWN]:
            click.echo(f"  {one.point.reference} {one.point.crashes}: {one.differences[0]}")
        figures[name] = {
            "points": len(points),
            "pairs": len(doubles),
            "differences": [[one.point.reference, one.point.crashes, one.differences[:5]] for one in bad],
            "seconds": round(seconds, 1),
        }
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(figure["differences"] for figure in figures.values()))


if __name__ == "__main__":
    main()
