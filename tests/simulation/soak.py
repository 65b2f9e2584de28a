"""`python -m tests.simulation.soak`: a mirror at work for days beside a source that changes and an API that fails.

Cycle after cycle, on a virtual clock: changes with ties, lateness and stale replicas; each fault of the sandbox with
the same share of all requests; a crash at a random step now and then; a new process each day; a comparison each night,
whose repairs are counted. At the end the source rests, and the warehouse has to equal it.

Memory: the simulated account lives in the same process and grows with its history. How much of the growth is the
account's own shows a second run of it without any mirror (`--source-alone`), which the command starts by itself.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import click

from rally_pipeline.http.errors import ApiError
from rally_pipeline.rally.deletes import MassDeleteSuspected
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.retention import SnapshotRequired
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.faults import FAULTS
from rally_pipeline.warehouse import WarehouseError
from tests.rally.world import Crash
from tests.simulation.rally.history import LYING_FAULTS
from tests.simulation.rally.process import Process
from tests.simulation.script import workplace
from tests.simulation.storage import quick_storage

DAY_SECONDS = 86_400
CYCLE_SECONDS = 600
RECORDS = 20_000
CRASH_EVERY = 25
"""Cycles between two crashes."""
BOUNDS = {"late_seconds": 40, "replica_lag_seconds": 20}
POLICY = {"overlap_seconds": 120, "staleness_seconds": 30}
_COMPARE_TRIES = 20
_BETTER_AT_NIGHT = 50
_STEPS_BETWEEN_EDITS = 7
"""Calls and commits of a comparison between two changes of the source."""
_WEIGHTS = {"insert": 1.0, "update": 8.0, "delete": 0.9, "revive": 0.1}
_SAID = re.compile(r"rally-pipeline allow-deletes (\w+) (\d+)")
"""What the person at the screen is told to do."""
LASTING = frozenset({"unauthorized", "forbidden", "hidden", "always_429"})
"""Faults of an account, not of a request: a person has to act."""
LYING = LYING_FAULTS | {"not_found_page"}
"""Well-formed answers that say something wrong about a record, such as 404 for one that is there."""
FAULT_NAMES = sorted(FAULTS.keys() - LASTING - LYING)


@dataclass
class Report:
    """What the days came to. `lost`, `doubled` and `repairs` have to be 0."""

    days: float
    changes: int = 0
    cycles: int = 0
    requests: int = 0
    faults: int = 0
    crashes: int = 0
    failed_parts: int = 0
    questions: int = 0
    """Mass deletes that a person had to allow; the deletes of this account are real."""
    lost: int = 0
    """Rows and feed entries that are missing, and rows that are not as the source has them."""
    doubled: int = 0
    """Rows that the source does not have."""
    repairs: int = 0
    """Rows that a comparison found different although nothing was pending for them."""
    in_flight: int = 0
    """Rows that the source changed around a comparison: neither lost nor repaired."""
    marks_left: int = 0
    memory_mb_by_day: list[float] = field(default_factory=list)
    source_alone_mb_by_day: list[float] = field(default_factory=list)
    open_files_by_day: list[int] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not (self.lost or self.doubled or self.repairs or self.marks_left)


class Account:
    """The simulated account, and time."""

    def __init__(self, seed: int, days: float, changes: int) -> None:
        self.sandbox = Sandbox(records=RECORDS, seed=seed, limit_per_minute=None, apis=["rally"])
        self.sandbox.rally.switch(
            late_share=0.05,
            replica_share=0.2,
            max_limit=500,
            feed_ties="shuffled",
            list_order="-updatedAt",
            **BOUNDS,
        )
        self.cycles = max(1, round(days * DAY_SECONDS / CYCLE_SECONDS))
        self._per_cycle = changes / self.cycles
        self._due = 0.0
        self.changes = 0

    def live_on(self) -> None:
        """One cycle of changes; as much time passes."""
        self._due += self._per_cycle
        number = int(self._due)
        self._due -= number
        self.changes += number
        begun = self.sandbox.clock.now()
        self.sandbox.rally.mutate(number, kinds=_WEIGHTS, over_seconds=CYCLE_SECONDS * 0.9)
        passed = (self.sandbox.clock.now() - begun).total_seconds()
        self.sandbox.clock.advance(max(0.0, CYCLE_SECONDS - passed))

    def stir(self, number: int) -> None:
        """Some changes in a short time."""
        self.changes += number
        self.sandbox.rally.mutate(number, kinds=_WEIGHTS, over_seconds=number / 2)

    def edit(self) -> None:
        """One change now. No delete: one whose entry is later than V looks like a row that was lost."""
        self.changes += 1
        self.sandbox.rally.mutate(1, kinds={"insert": 1.0, "update": 8.0}, over_seconds=0.5)


class Soak:
    """One mirror beside one account."""

    def __init__(self, seed: int, days: float, changes: int, fault_share: float, folder: Path) -> None:
        self.report = Report(days)
        self.account = Account(seed, days, changes)
        self.sandbox = self.account.sandbox
        self._dice = Random(seed)
        self._fault_share = fault_share
        self._steps_to_live: int | None = None
        self._steps_to_edit: int | None = None
        self._break_things(fault_share)
        self.process = Process(
            f"sqlite:///{folder / 'warehouse.db'}",
            self.sandbox,
            hook=self._at_step,
            entities=list(Entity),
            seed=seed,
            **POLICY,
        )

    def run(self) -> Report:
        """All days, then rest."""
        begun = time.monotonic()
        per_day = max(1, DAY_SECONDS // CYCLE_SECONDS)
        for cycle in range(self.account.cycles):
            self.account.live_on()
            if cycle % CRASH_EVERY == CRASH_EVERY - 1:
                self._steps_to_live = self._dice.randrange(1, 400)
            self._work(self.process.parts_of_cycle)
            if cycle % per_day == per_day - 1:
                self._end_day(begun)
        self._rest()
        self.report.changes = self.account.changes
        self.report.cycles = self.account.cycles
        self.report.seconds = round(time.monotonic() - begun, 1)
        self._judge()
        return self.report

    def _break_things(self, share: float) -> None:
        self.sandbox.faults.clear()
        for name in FAULT_NAMES:
            self.sandbox.faults.add(name, times=None, probability=share)

    def _at_step(self, process: Process, name: str) -> None:
        if self._steps_to_live is not None:
            self._steps_to_live -= 1
            if self._steps_to_live < 0:
                self._steps_to_live = None
                process.die(name)
        if self._steps_to_edit is not None:
            self._steps_to_edit -= 1
            if self._steps_to_edit == 0:
                self._steps_to_edit = _STEPS_BETWEEN_EDITS
                self.account.edit()

    def _work(self, parts: Callable[[], list[Callable[[], object]]]) -> None:
        """The parts, each on its own as an orchestrator runs them; what fails is left to the next cycle."""
        try:
            for part in parts():
                self._attempt(part)
        except Crash:
            self.report.crashes += 1
            self._steps_to_live = None
            self.process.restart()
            # Its lease runs out: nobody can tell that this process is dead.
            self.sandbox.clock.advance(130)
        self.report.requests += len(self.sandbox.log)
        self.report.faults += sum(bool(entry.fault) for entry in self.sandbox.log)
        self.sandbox.log.clear()

    def _attempt(self, part: Callable[[], object]) -> bool:
        try:
            part()
        except (ApiError, SnapshotRequired, WarehouseError):
            self.report.failed_parts += 1
            return False
        except MassDeleteSuspected as question:
            self.report.questions += 1
            entity, number = _SAID.findall(str(question))[0]
            self.process.mirror.allow_deletes(Entity(entity), int(number))
            return False
        return True

    def _compare(self) -> None:
        """The comparison as people run it, beside a source at work; a failed one is tried again, as theirs is.

        No list is read to its end where most requests fail, so the API is in better health at night.
        """
        self._break_things(self._fault_share / _BETTER_AT_NIGHT)
        try:
            self._try_to_compare()
        finally:
            self._break_things(self._fault_share)

    def _try_to_compare(self) -> None:
        done: list[bool] = []
        for _ in range(_COMPARE_TRIES):
            self.account.stir(50)
            self._steps_to_edit = _STEPS_BETWEEN_EDITS
            self._work(lambda: [lambda: done.append(self._compare_once())])
            self._steps_to_edit = None
            if done:
                return
            self.sandbox.clock.advance(60)
        self.report.lost += 1
        self.report.examples.append(f"no comparison ended in {_COMPARE_TRIES} attempts")

    def _compare_once(self) -> bool:
        for found in self.process.mirror.verify_all(heal=True):
            self.report.repairs += found.differences
            self.report.in_flight += found.in_flight
            if found.differences:
                shown = [f"repaired: {found.entity} {example}" for example in found.examples]
                self.report.examples += shown[:3]
        return True

    def _end_day(self, begun: float) -> None:
        """The nightly comparison, and a new process."""
        self._compare()
        self.process.restart()
        self.report.memory_mb_by_day.append(resident_mb())
        self.report.open_files_by_day.append(len(list(Path("/proc/self/fd").iterdir())))
        day = len(self.report.memory_mb_by_day)
        click.echo(
            f"day {day}: {self.account.changes:,} changes, {self.report.requests:,} requests,"
            f" {self.report.faults:,} faults, {self.report.crashes} crashes, {self.report.repairs} repairs,"
            f" {time.monotonic() - begun:.0f} s",
            err=True,
        )

    def _rest(self) -> None:
        """No faults, no changes: two cycles have to be enough."""
        self.sandbox.faults.clear()
        self._steps_to_live = None
        for _ in range(2):
            # Looks that failed wait for up to an hour before they are repeated.
            self.sandbox.clock.advance(3_700 + sum(BOUNDS.values()))
            self._work(self.process.parts_of_cycle)

    def _judge(self) -> None:
        differences = self.process.differences()
        kinds = Counter("doubled" if text.endswith("is extra") else "lost" for text in differences)
        missing = self._missing_entries()
        self.report.lost = kinds["lost"] + len(missing)
        self.report.doubled = kinds["doubled"]
        self.report.marks_left = len(self.process.marks())
        self.report.examples += [*differences[:10], *missing[:5]]
        self.process.close()

    def _missing_entries(self) -> list[str]:
        """Entries of the feed between the log's base and its cursor that the log does not hold."""
        from datetime import datetime, timedelta

        coverage = self.process.mirror.coverage()
        assert coverage.base is not None
        assert coverage.through is not None
        with self.process.warehouse.reading() as tx:
            known = {row[0] for row in tx.connection.exec_driver_sql("SELECT id FROM rally_changes")}
        first, last = coverage.base + timedelta(seconds=1), coverage.through
        return [
            f"entry {entry['id']} of {entry['changedAt']} is not in the log"
            for entry in self.sandbox.rally.entries()
            if entry["id"] not in known and first <= datetime.fromisoformat(entry["changedAt"]) <= last
        ]


def resident_mb() -> float:
    """Memory of this process, after a collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def memory_of_source(seed: int, days: float, changes: int) -> list[float]:
    """Memory at each day's end of the account alone, in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--source-alone"]
    command += ["--seed", str(seed), "--days", str(days), "--changes", str(changes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout)
    return found


def live_alone(seed: int, days: float, changes: int) -> list[float]:
    """The same days without a mirror."""
    account = Account(seed, days, changes)
    per_day = max(1, DAY_SECONDS // CYCLE_SECONDS)
    memory = []
    for cycle in range(account.cycles):
        account.live_on()
        if cycle % per_day == per_day - 1:
            memory.append(resident_mb())
    return memory


def describe(report: Report) -> str:
    """For a person."""
    growth = ""
    if len(report.memory_mb_by_day) > 1:
        own = report.source_alone_mb_by_day
        both = report.memory_mb_by_day[-1] - report.memory_mb_by_day[0]
        growth = (
            f" (grown by {both:.0f} MB since the first day, the account alone by {own[-1] - own[0]:.0f} MB)"
        )
    files = report.open_files_by_day
    return "\n".join(
        [
            f"{report.days:g} simulated days in {report.seconds:.0f} s: {report.changes:,} changes,"
            f" {report.cycles:,} cycles, {report.requests:,} requests, {report.faults:,} faults of"
            f" {len(FAULT_NAMES)} kinds, {report.crashes} crashes, {report.failed_parts:,} parts that failed,"
            f" {report.questions} questions",
            f"lost {report.lost}, doubled {report.doubled}, repairs {report.repairs},"
            f" in flight {report.in_flight}, marks left {report.marks_left}",
            f"memory {', '.join(f'{mb:.0f}' for mb in report.memory_mb_by_day)} MB at the end of each day{growth}",
            f"open files {', '.join(map(str, files))}",
            *report.examples,
        ]
    )


@click.command()
@click.option("--days", type=float, default=7.0, show_default=True, help="Simulated days.")
@click.option("--changes", default=1_000_000, show_default=True, help="Changes of the source in all.")
@click.option(
    "--fault-share", default=0.02, show_default=True, help="Share of the requests that meet each fault."
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there, as JSON."
)
@click.option(
    "--source-alone", is_flag=True, help="No mirror: print the account's memory, day by day, as JSON."
)
def main(
    days: float, changes: int, fault_share: float, seed: int, out: Path | None, source_alone: bool
) -> None:
    """Let a mirror work for days; the exit code is 1 if anything was lost, doubled or repaired."""
    if source_alone:
        click.echo(json.dumps(live_alone(seed, days, changes)))
        return
    with workplace() as folder, quick_storage(seed):
        report = Soak(seed, days, changes, fault_share, folder).run()
    report.source_alone_mb_by_day = memory_of_source(seed, days, changes)
    click.echo(describe(report))
    if out is not None:
        out.write_text(json.dumps({**asdict(report), "passed": report.passed}, indent=2))
    sys.exit(not report.passed)


if __name__ == "__main__":
    main()
