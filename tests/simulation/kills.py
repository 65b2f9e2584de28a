"""`python -m tests.simulation.kills`: real processes, real sockets, SIGKILL at random moments.

In each round an account and an empty warehouse; processes sync it and are killed, while the account goes on changing.
Then one process lives to its end, another one follows, and the warehouse has to equal the truth. The seed decides when
to kill; where that finds the process is up to the machine, so a round cannot be repeated exactly.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import click

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from tests.postgres import running_server
from tests.rally.world import World as RallyWorld
from tests.sell.world import World as SellWorld
from tests.simulation.lives import LIVES, live
from tests.simulation.script import load, workplace

KILLS_A_ROUND = 10
_LIFE_SECONDS = 60.0
"""Longer than any life takes; one that takes longer is a problem of its own."""
_SETTLED_SECONDS = 2.1
"""Times at the source are whole seconds: after this the last change is over."""
_SETTINGS = {"RALLY_STALENESS_SECONDS": "0", "RALLY_FEED_OVERLAP_SECONDS": "30"}
_RALLY: dict[str, Any] = {"max_limit": 20, "feed_max_limit": 30}
_SELL: dict[str, Any] = {"records": 260, "page_size": 5, "limit_per_second": None, "redeliver_failed": True}


@dataclass
class Score:
    """What the rounds of one system came to."""

    rounds: int = 0
    kills: int = 0
    lives: int = 0
    survived: int = 0
    """Lives that ended before they were to be killed."""
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    usual_seconds: float = 0.0
    """How long a life lasted lately; the kills are spread over that."""


@dataclass
class Round:
    """One account, one warehouse, and the processes that work on them."""

    system: str
    url: str
    folder: Path
    sandbox: Sandbox
    environment: dict[str, str]
    dice: Random
    score: Score
    mutant: str

    def rehearse(self) -> None:
        """One undisturbed life, to know how long it takes."""
        begun = time.monotonic()
        process = self.begin()
        process.join(_LIFE_SECONDS)
        self.score.usual_seconds = time.monotonic() - begun
        self.check_exit(process)

    def kill(self, count: int) -> None:
        """Let processes begin, and kill so many of them, while the account changes."""
        killed = attempts = 0
        while killed < count and attempts < 3 * count:
            attempts += 1
            process = self.begin()
            begun = time.monotonic()
            process.join(self.dice.random() * self.score.usual_seconds)
            if process.exitcode is None:
                process.kill()
                process.join()
                killed += 1
            else:
                self.score.survived += 1
                lasted = time.monotonic() - begun
                self.score.usual_seconds = (self.score.usual_seconds + lasted) / 2
                self.check_exit(process)
            if self.dice.random() < 0.7:
                self.change()
        self.score.kills += killed

    def finish(self) -> None:
        """One more process, which lives; then another one, when the last change is surely over."""
        for _ in range(2):
            process = self.begin()
            process.join(_LIFE_SECONDS)
            if process.exitcode is None:
                self.score.problems.append(f"{self.system}: a process did not end")
                process.kill()
                process.join()
            self.check_exit(process)
            time.sleep(_SETTLED_SECONDS)

    def begin(self) -> BaseProcess:
        """A process of its own, from the fork server."""
        context = multiprocessing.get_context("forkserver")
        given = (self.system, self.url, self.environment, self.folder / "said.txt", self.mutant)
        process = context.Process(target=live, args=given)
        process.start()
        self.score.lives += 1
        return process

    def check_exit(self, process: BaseProcess) -> None:
        if process.exitcode not in (0, None):
            said = (self.folder / "said.txt").read_text(encoding="utf-8").strip().splitlines()
            self.score.problems.append(
                f"{self.system}: exit code {process.exitcode}: {said[-1] if said else ''}"
            )

    def change(self) -> None:
        with self.sandbox.lock:
            if self.system == "rally":
                self.sandbox.rally.mutate(25)
            else:
                self.sandbox.sell.world.mutate(25)

    def compare(self) -> None:
        """Warehouse against truth, and what is left over."""
        found = _rally_differences(self) if self.system == "rally" else _sell_differences(self)
        self.score.problems += [f"{self.system}: {text}" for text in found]
        self.score.rounds += 1


def _rally_differences(played: Round) -> list[str]:
    world = RallyWorld(played.url, played.sandbox)
    try:
        return [*world.differences(), *(f"left over: {mark}" for mark in world.marks())]
    finally:
        world.close()


def _sell_differences(played: Round) -> list[str]:
    world = SellWorld(played.url, played.sandbox)
    try:
        sync = played.sandbox.sell.sync
        left = sync.pending(sync.devices[played.sandbox.sell.device_uuid])
        found = [*world.differences(), *world.unsettled()]
        return [*found, f"{len(left)} objects are not acknowledged"] if left else found
    finally:
        world.close()


@contextlib.contextmanager
def opened(system: str, url: str, folder: Path, seed: int, score: Score, mutant: str) -> Iterator[Round]:
    """A round that is ready to be played."""
    sandbox = Sandbox(
        seed=seed,
        records=600,
        limit_per_minute=None,
        clock=SandboxClock.running(),
        apis=[system],
        rally=_RALLY,
        sell=_SELL,
    )
    with SandboxServer(sandbox) as server:
        environment = {**server.environment(), **_SETTINGS}
        yield Round(system, url, folder, sandbox, environment, Random(seed), score, mutant)


def play_round(played: Round, kills: int) -> None:
    """One round; its figures go into its score."""
    begun = time.monotonic()
    played.kill(kills)
    played.finish()
    played.compare()
    played.score.seconds += time.monotonic() - begun


@contextlib.contextmanager
def warehouses(database: str) -> Iterator[Callable[[Path, int], str]]:
    """A function that gives the URL of an empty warehouse for a round."""
    if database == "sqlite":
        yield lambda folder, _number: f"sqlite:///{folder / 'warehouse.db'}"
        return
    with running_server() as server:

        def make(_folder: Path, number: int) -> str:
            with server.connect() as connection:
                connection.execute(f"CREATE SCHEMA round_{number}")
            return server.url(schema=f"round_{number}")

        yield make


@click.command()
@click.option("--kills", type=int, default=60, show_default=True, help="How many processes to kill.")
@click.option("--database", type=click.Choice(["sqlite", "postgresql"]), default="sqlite", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--mutant", default="", help="Spoil the one system that has a mutant of this name, and kill only that."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures to this file, as JSON.")
def main(kills: int, database: str, seed: int, mutant: str, out: Path | None) -> None:
    """Kill syncs of Rally and of Sell in turn."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.simulation.lives"])
    names = [name for name in LIVES if not mutant or mutant in {one.name for one in load(name).mutants}]
    if not names:
        raise click.UsageError(f"no system that is killed has a mutant {mutant}")
    scores = {name: Score() for name in names}
    with warehouses(database) as make_url:
        numbers = itertools.count()
        for number, system in zip(numbers, itertools.cycle(scores), strict=False):
            done = sum(score.kills for score in scores.values())
            if done >= kills or any(score.problems for score in scores.values()):
                break
            score = scores[system]
            with workplace() as folder:
                if not score.rounds:
                    rehearsal = make_url(folder / "rehearsal", 2 * number + 1)
                    with opened(system, rehearsal, folder, seed, score, mutant) as played:
                        played.rehearse()
                url = make_url(folder / "round", 2 * number)
                with opened(system, url, folder, seed * 10_000 + number, score, mutant) as played:
                    play_round(played, min(KILLS_A_ROUND, kills - done))
    _report(database, scores)
    if out is not None:
        figures = {name: vars(score) for name, score in scores.items()}
        out.write_text(json.dumps({"database": database, **figures}, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(score.problems for score in scores.values()))


def _report(database: str, scores: dict[str, Score]) -> None:
    click.echo(f"{database:<12} {'kills':>6} {'lives':>6} {'rounds':>7} {'problems':>9} {'seconds':>8}")
    for name, score in scores.items():
        click.echo(
            f"{name:<12} {score.kills:>6} {score.lives:>6} {score.rounds:>7} {len(score.problems):>9}"
            f" {score.seconds:>8.1f}"
        )
        for problem in score.problems[:10]:
            click.echo(f"  {problem}")


if __name__ == "__main__":
    main()
