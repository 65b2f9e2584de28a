"""Playing many histories, in this process or in several, with what each one cost."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from tests.simulation.script import System, Verdict, load, play_safely

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


@dataclass(frozen=True)
class Task:
    """One history to play: which system, which seed, and by which name the product is spoiled (none: not at all)."""

    system: str
    seed: int
    mutant: str = ""


@dataclass(frozen=True)
class Played:
    """A history that was played."""

    task: Task
    verdict: Verdict
    seconds: float
    """CPU seconds."""


@dataclass
class Score:
    """What a number of histories came to."""

    histories: int = 0
    crashes: int = 0
    requests: int = 0
    steps: int = 0
    seconds: float = 0.0
    diverged: list[Played] = field(default_factory=list)
    unlike: list[int] = field(default_factory=list)
    """Seeds whose second play had another digest."""

    def add(self, played: Played) -> None:
        self.histories += 1
        self.crashes += played.verdict.crashes
        self.requests += played.verdict.requests
        self.steps += played.verdict.steps
        self.seconds += played.seconds
        if played.verdict.problems:
            self.diverged.append(played)


def spoiled(system: System, mutant: str) -> AbstractContextManager[None]:
    """The product spoiled by the mutant of that name while entered; not at all without a name."""
    return system.mutant(mutant).patch() if mutant else nullcontext()


def play(task: Task) -> Played:
    """Play one history here and now."""
    system = load(task.system)
    begun = time.process_time()
    with spoiled(system, task.mutant):
        verdict = play_safely(system, system.generate(task.seed))
    return Played(task, verdict, time.process_time() - begun)


def play_all(tasks: Iterable[Task], *, workers: int = 1, hash_seed: int | None = None) -> Iterator[Played]:
    """Play all of them; with several workers in the order in which they end."""
    yield from in_workers(play, tasks, workers=workers, hash_seed=hash_seed)


def in_workers(
    work: Callable[[Asked], Answered],
    asked: Iterable[Asked],
    *,
    workers: int,
    hash_seed: int | None = None,
    at_once: int = 4,
) -> Iterator[Answered]:
    """`work` on each of them in worker processes, in the order in which they end; with one worker and without a
    seed of its own for hashes, in this process. `at_once`: how many a worker takes from the heap in one go.
    """
    if workers <= 1 and hash_seed is None:
        yield from map(work, asked)
        return
    # An executor, because a worker that dies breaks it with an error; a `Pool` would wait for the lost answer for ever.
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    with _hash_seed(hash_seed):
        try:
            heap = iter(asked)
            shares = iter(lambda: list(islice(heap, at_once)), [])
            for share in as_completed([executor.submit(_work_all, work, share) for share in shares]):
                yield from share.result()
        finally:
            executor.shutdown(cancel_futures=True)


def _work_all(work: Callable[[Asked], Answered], asked: list[Asked]) -> list[Answered]:
    return [work(one) for one in asked]


@contextmanager
def _hash_seed(seed: int | None) -> Iterator[None]:
    """Processes that start meanwhile arrange sets and dictionaries of texts by this seed."""
    before = os.environ.get("PYTHONHASHSEED")
    if seed is not None:
        os.environ["PYTHONHASHSEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONHASHSEED", None)
        else:
            os.environ["PYTHONHASHSEED"] = before
