"""`python -m tests.simulation`: random histories of every system, all of which have to end equal.

A failing history is shrunk, printed as a script, and can be played again with `--script`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from tests.simulation.runner import Score, Task, play_all, spoiled
from tests.simulation.script import Script, System, Verdict, available, load, play_safely
from tests.simulation.shrinking import kinds_of, shrink

_SHOWN_PROBLEMS = 6


@click.command()
@click.argument("systems", nargs=-1)
@click.option("--histories", type=int, help="How many of each system; each has its own number otherwise.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first history.")
@click.option("--workers", type=int, default=os.cpu_count() or 1, show_default=True)
@click.option("--script", type=click.Path(exists=True, path_type=Path), help="Play this script instead.")
@click.option("--mutant", default="", help="Spoil the product in this way, to see how a script catches it.")
@click.option("--twice", is_flag=True, help="Play each history twice; both must leave the same digest.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures to this file, as JSON.")
def main(
    systems: tuple[str, ...],
    histories: int | None,
    seed: int,
    workers: int,
    script: Path | None,
    mutant: str,
    twice: bool,
    out: Path | None,
) -> None:
    """Play random histories of SYSTEMS (all of them without a name)."""
    if script is not None:
        sys.exit(_replay(Script.parse(script.read_text(encoding="utf-8")), mutant))
    scores: dict[str, Score] = {}
    for name in chosen(systems):
        count = histories if histories is not None else load(name).histories
        tasks = [Task(name, number, mutant) for number in range(seed, seed + count)]
        scores[name] = _play(name, tasks, workers=workers, twice=twice)
        for played in scores[name].diverged[:1]:
            _explain(load(name), played.task, played.verdict)
    _report(scores)
    if out is not None:
        figures = {name: _figures(score) for name, score in scores.items()}
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(score.diverged or score.unlike for score in scores.values()))


def chosen(systems: tuple[str, ...]) -> tuple[str, ...]:
    """The systems that were named; all of them for none and for `all`."""
    there = available()
    wanted = there if not systems or "all" in systems else systems
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise click.UsageError(f"no system {', '.join(unknown)}: choose from {', '.join(there)}")
    return wanted


def _play(name: str, tasks: list[Task], *, workers: int, twice: bool) -> Score:
    score = Score()
    digests: dict[int, str] = {}
    shown = time.monotonic()
    # With two plays the second one also arranges its sets in another way.
    for played in play_all(tasks, workers=workers, hash_seed=1 if twice else None):
        score.add(played)
        digests[played.task.seed] = played.verdict.digest
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            click.echo(f"{name}: {score.histories} of {len(tasks)}, {len(score.diverged)} diverged", err=True)
    if twice:
        for played in play_all(tasks, workers=workers, hash_seed=2):
            if digests[played.task.seed] != played.verdict.digest:
                score.unlike.append(played.task.seed)
    score.diverged.sort(key=lambda played: played.task.seed)
    return score


def _explain(system: System, task: Task, verdict: Verdict) -> None:
    """The problems of one failing history, and the shortest script that still fails."""
    click.echo(f"\n{system.name}: seed {task.seed} diverged")
    _show_problems(verdict)
    click.echo("shrinking …", err=True)
    kinds = kinds_of(verdict.problems)
    with spoiled(system, task.mutant):
        short = shrink(
            system.generate(task.seed),
            lambda script: bool(kinds_of(play_safely(system, script).problems) & kinds),
            defaults=system.defaults,
        )
        left = play_safely(system, short)
    file = Path(f"{system.name}-{task.seed}.script")
    file.write_text(short.text(), encoding="utf-8")
    click.echo(f"\n{short.text()}")
    _show_problems(left)
    spoiling = f" --mutant {task.mutant}" if task.mutant else ""
    click.echo(f"\nagain: python -m tests.simulation --script {file}{spoiling}\n")


def _show_problems(verdict: Verdict) -> None:
    for problem in verdict.problems[:_SHOWN_PROBLEMS]:
        click.echo(f"  - {problem}")
    if len(verdict.problems) > _SHOWN_PROBLEMS:
        click.echo(f"  - and {len(verdict.problems) - _SHOWN_PROBLEMS} more")


def _replay(script: Script, mutant: str) -> int:
    system = load(script.system)
    with spoiled(system, mutant):
        verdict = play_safely(system, script)
    click.echo(
        f"{len(script.events)} events, {verdict.crashes} crashes, {verdict.requests} requests,"
        f" digest {verdict.digest}"
    )
    _show_problems(verdict)
    return int(bool(verdict.problems))


def _report(scores: dict[str, Score]) -> None:
    head = ("system", "histories", "crashes", "requests", "steps", "diverged", "CPU s", "s each")
    click.echo("  ".join(f"{title:>11}" for title in head))
    for name, score in scores.items():
        each = score.seconds / max(1, score.histories)
        row = (
            name,
            f"{score.histories:,}",
            f"{score.crashes:,}",
            f"{score.requests:,}",
            f"{score.steps:,}",
            f"{len(score.diverged):,}",
            f"{score.seconds:.1f}",
            f"{each:.3f}",
        )
        click.echo("  ".join(f"{value:>11}" for value in row))
        if score.diverged:
            seeds = " ".join(str(played.task.seed) for played in score.diverged[:20])
            click.echo(f"{name}: diverged with seeds {seeds}")
        if score.unlike:
            click.echo(f"{name}: another digest the second time with seeds {score.unlike[:20]}")


def _figures(score: Score) -> dict[str, object]:
    return {
        **{name: value for name, value in asdict(score).items() if name not in ("diverged", "unlike")},
        "diverged": [played.task.seed for played in score.diverged],
        "problems": {played.task.seed: played.verdict.problems[:10] for played in score.diverged},
        "unlike": score.unlike,
    }


if __name__ == "__main__":
    main()
