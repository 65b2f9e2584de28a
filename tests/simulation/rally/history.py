"""Playing one Rally script: the source changes, the mirror works and suffers, then calm, and a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from rally_pipeline.http.errors import ApiError
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.retention import SnapshotRequired
from rally_pipeline.rally.tables import metadata
from rally_pipeline.sandbox.request_log import LogEntry
from rally_pipeline.warehouse import WarehouseError
from rally_pipeline.warehouse.errors import FenceLost, LeaseHeld
from rally_pipeline.warehouse.tables import leases, quarantine, sync_state
from tests.rally.world import Crash
from tests.simulation.rally.observer import Observer
from tests.simulation.rally.process import Process
from tests.simulation.rally.settings import DULL, policy_of
from tests.simulation.rally.source import Source
from tests.simulation.script import Event, Script, Verdict, digest_of
from tests.simulation.storage import dump, quick_storage

LEASE_SECONDS = 121
LYING_FAULTS = frozenset({"huge_number", "long_integer", "many_keys", "duplicate_keys", "nan"})
"""Well-formed bodies that say something wrong about a record: nothing can tell before a comparison."""
_SHOWN = 12
_LIMITS_OF_A_PAGE = ("than a feed page can hold", "than the feed lets anybody step over")
_NOT_OURS = "elsewhere"
"""A write of the simulation itself, which no fault befalls."""


@dataclass
class _Armed:
    """An event that waits for a step of the next operation."""

    event: Event
    step: int


class History:
    """One script in one folder."""

    def __init__(self, script: Script, folder: Path) -> None:
        self.settings = {**DULL, **script.settings}
        self.script = script
        self.file = folder / "warehouse.db"
        self.source = Source(script.seed, self.settings)
        self.sandbox = self.source.sandbox
        self.entities = [Entity(name) for name in self.source.entities]
        self.problems: list[str] = []
        self.steps = self.crashes = 0
        self._set_back = 0.0
        self._armed: list[_Armed] = []
        self._step_of_operation = 0
        self._rival_steps_left: int | None = None
        self._disturbed = self._contended = self._failing_commits = self._calm = False
        self._commit_to_fail = self._died_elsewhere = self._rival_is_at_work = False
        self._observer: Observer | None = None
        self.main = self._new_process(script.seed)
        self.rival: Process | None = None
        self._observer = Observer(self.file, self.source.api.store, self.entities)

    def _new_process(self, seed: int) -> Process:
        return Process(
            f"sqlite:///{self.file}",
            self.sandbox,
            hook=self._at_step,
            entities=self.entities,
            skew_seconds=self.settings["clock_skew_seconds"] + self._set_back,
            seed=seed,
            **policy_of(self.settings),
        )

    @property
    def observer(self) -> Observer:
        assert self._observer is not None
        return self._observer

    def play(self) -> Verdict:
        """Everything, from the first event to the verdict."""
        for event in self.script.events:
            self._happen(event)
        self._calm_down()
        self.problems += [*self.observer.problems, *self._left_over()]
        self.observer.close()
        for process in self._processes():
            process.close()
        return Verdict(self.problems, self._digest(), len(self.sandbox.log), self.crashes, self.steps)

    # ------------------------------------------------------------------ events

    def _happen(self, event: Event) -> None:
        if event.arguments.get("entity", self.source.entities[0]) not in self.source.entities:
            return
        step = event.arguments.get("step")
        if step is not None:
            self._armed.append(_Armed(event, step))
            return
        rest = {name: value for name, value in event.arguments.items() if name != "step"}
        getattr(self, f"_do_{event.name}")(**rest)

    def _do_change(self, **change: Any) -> None:
        self.source.change(**change)

    def _do_wait(self, seconds: float) -> None:
        self.sandbox.clock.advance(seconds)

    def _do_set_back(self, seconds: float) -> None:
        """The server's wall clock is put back."""
        self.sandbox.clock.set(self.sandbox.clock.now() - timedelta(seconds=seconds))
        for process in self._processes():
            process.keep_time(seconds)
        self._set_back += seconds

    def _do_fault(self, **rule: Any) -> None:
        self._disturbed = True
        if rule["fault"] in LYING_FAULTS:
            self.observer.trusts_answers = False
        self.sandbox.faults.add(**rule)

    def _do_outage(self, seconds: float) -> None:
        self._disturbed = True
        self.sandbox.faults.add("status_503", times=None, for_seconds=seconds)

    def _do_restart(self) -> None:
        self.main.restart()

    def _do_extract(self, entity: str, restart: bool = False) -> None:
        self._operate([lambda: self.main.mirror.extract(Entity(entity), restart=restart)])

    def _do_updated(self, entity: str) -> None:
        self._operate([lambda: self.main.mirror.extract_updated(Entity(entity))])

    def _do_feed(self) -> None:
        self._operate([self.main.mirror.read_changes])

    def _do_window(self, back: float, length: float) -> None:
        """Read a stretch of the feed again, which began `back` seconds ago."""
        start = self.sandbox.clock.now() - timedelta(seconds=back)
        self._operate([lambda: self._read_window(start, start + timedelta(seconds=length))])

    def _read_window(self, start: Any, end: Any) -> None:
        try:
            self.main.mirror.read_changes(start, end)
        except SnapshotRequired as reason:
            forgets = self.settings["retention_seconds"] is not None or self.settings["merge_entries"]
            if not forgets and not any(limit in str(reason) for limit in _LIMITS_OF_A_PAGE):
                raise

    def _do_settle(self, entity: str, wait: bool = True) -> None:
        self._operate([lambda: self.main.mirror.settle(Entity(entity), wait=wait)])

    def _do_poll(self) -> None:
        self._operate([self.main.mirror.poll])

    def _do_verify(self, entity: str, heal: bool = True) -> None:
        filled = self.main.mirror.is_filled(Entity(entity))
        self._operate([lambda: self._compare(Entity(entity), heal)] if filled else [])

    def _compare(self, entity: Entity, heal: bool) -> None:
        """Compare, and hold the numbers against each other: a mirror at work has no row that is missing or stale.

        One may be extra: a delete whose entry comes later than the comparison waits for.
        """
        found = self.main.mirror.verify(entity, heal=heal)
        listed = found.equal + found.missing + found.stale
        adds_up = (
            found.compared - found.in_flight <= listed <= found.compared
            and found.differences == found.repaired + found.left
        )
        told = self.observer.trusts_answers and self.main.mirror.snapshot_required(entity) is None
        if not adds_up or (told and (found.missing or found.stale)):
            self.problems.append(f"a comparison took what is in flight for a difference: {found}")

    def _do_cycle(self) -> None:
        self._operate(self.main.parts_of_cycle())

    def _do_crash(self) -> None:
        """Only ever at a step; without an operation there is nothing to end."""

    def _do_fail_commit(self) -> None:
        """Only ever at a step."""

    def _do_rival(self, **rival: Any) -> None:
        self._let_rival_work(**rival)

    # ------------------------------------------------------------------ operations and what befalls them

    def _operate(self, parts: Iterable[Callable[[], object]]) -> None:
        """Run the parts one by one; a crash ends them all, a failure only its own part."""
        self._step_of_operation = 0
        for part in parts:
            if not self._survive(part):
                break
        missed, self._armed = self._armed, []
        self._commit_to_fail = False
        for armed in missed:
            # The source and time go on; what should have hit the operation came too late.
            if armed.event.name in ("change", "wait", "set_back"):
                self._happen(_without_step(armed.event))

    def _survive(self, part: Callable[[], object]) -> bool:
        """Whether the process still lives."""
        try:
            part()
        except Crash:
            self._recover()
            return False
        except ApiError as error:
            self._expect(self._disturbed, error)
        except (FenceLost, LeaseHeld) as error:
            self._expect(self._contended, error)
        except WarehouseError as error:
            self._expect(self._failing_commits, error)
        return True

    def _recover(self) -> None:
        """A new process, which may die on its way, too."""
        while True:
            self.crashes += 1
            try:
                self.main.restart()
                if self._died_elsewhere:
                    self._move_leases_elsewhere()
            except Crash:
                continue
            self._died_elsewhere = False
            return

    def _move_leases_elsewhere(self) -> None:
        """Let the dead process be one of another host, whose death nobody can see: its leases have to run out."""
        with self.main.warehouse.transaction(_NOT_OURS) as tx:
            tx.connection.exec_driver_sql(
                "UPDATE leases SET holder = json_set(holder, '$.host', 'elsewhere') WHERE holder IS NOT NULL"
            )

    def _expect(self, reason: bool, error: Exception) -> None:
        if self._calm or not reason:
            self.problems.append(f"unexpected {type(error).__name__}: {error}")

    def _at_step(self, process: Process, name: str) -> None:
        self.steps += 1
        if self._observer is None or name.startswith(f"{_NOT_OURS}:"):
            return
        if name.endswith(":before-commit"):
            self._observer.before_commit(name.partition(":")[0])
        elif name.endswith(":after-commit"):
            self._observer.after_commit(name.partition(":")[0])
        elif name.endswith(":before") and process.in_transaction:
            self.problems.append(f"a call inside a transaction: {name}")
        if process is not self.main:
            self._at_rival_step(process, name)
            return
        self._step_of_operation += 1
        if self._commit_to_fail and name.endswith(":before-commit"):
            self._commit_to_fail = False
            raise WarehouseError("the disk is full")
        for armed in self._due(name):
            self._befall(armed.event, name)

    def _due(self, name: str) -> Iterator[_Armed]:
        """What is to happen by this step, in order; each is taken off the list before it happens."""
        while True:
            due = next((armed for armed in self._armed if armed.step <= self._step_of_operation), None)
            # Another process cannot write while this one holds the database's lock.
            if due is None or (due.event.name == "rival" and name.endswith(":before-commit")):
                return
            self._armed.remove(due)
            yield due

    def _befall(self, event: Event, name: str) -> None:
        if event.name == "crash":
            self._died_elsewhere = event.arguments.get("elsewhere", False)
            self._contended = self._contended or self._died_elsewhere
            self.main.die(name)
        elif event.name == "fail_commit":
            self._failing_commits = True
            self._commit_to_fail = True
        elif event.name == "rival":
            self._let_rival_work(**_without_step(event).arguments)
        else:
            self._happen(_without_step(event))

    # ------------------------------------------------------------------ the second writer

    def _let_rival_work(self, work: str, entity: str, pause: float = 0.0, life: int | None = None) -> None:
        """Another process does a piece of work while the main one stands still for `pause` seconds; with `life` it
        dies after so many steps.
        """
        if self.main.in_transaction or (self.rival is not None and self._rival_is_at_work):
            return
        self._contended = True
        self.sandbox.clock.advance(pause)
        if self.rival is None:
            self.rival = self._new_process(self.script.seed + 1)
        elif self.rival.dead:
            self.rival.restart()
        self._rival_steps_left = life
        self._rival_is_at_work = True
        try:
            for part in self._rival_parts(self.rival, work, entity):
                part()
        except Crash:
            self.crashes += 1
        except ApiError as error:
            self._expect(self._disturbed, error)
        except WarehouseError as error:
            self._expect(self._contended, error)
        finally:
            self._rival_is_at_work = False

    def _rival_parts(self, rival: Process, work: str, entity: str) -> list[Callable[[], object]]:
        chosen = Entity(entity)
        works: dict[str, Callable[[], object]] = {
            "extract": lambda: rival.mirror.extract(chosen),
            "restart": lambda: rival.mirror.extract(chosen, restart=True),
            "feed": rival.mirror.read_changes,
            "settle": lambda: rival.mirror.settle(chosen),
        }
        return rival.parts_of_cycle() if work == "cycle" else [works[work]]

    def _at_rival_step(self, rival: Process, name: str) -> None:
        if self._rival_steps_left is not None:
            self._rival_steps_left -= 1
            if self._rival_steps_left < 0:
                rival.die(name)

    # ------------------------------------------------------------------ the end

    def _calm_down(self) -> None:
        """Faults stop and the source rests: two cycles have to be enough."""
        self.sandbox.faults.clear()
        self._armed.clear()
        bounds = ("late_seconds", "lag_seconds", "staleness_seconds")
        # Ten seconds: a client that met only failures leaves the server alone for five.
        rest = 10.0 + sum(self.settings[name] for name in bounds)
        self.sandbox.clock.advance(rest + (LEASE_SECONDS if self._contended else 0))
        self._calm = True
        # Where a clock was set back, a new state looks older than the stored one: only a third look is believed, and
        # an entry that the feed gives once more begins the count again.
        for _ in range(4 if self._set_back else 2):
            self._operate(self.main.parts_of_cycle())
            self._wait_for_postponed()
        if not self.observer.trusts_answers:
            self._operate(partial(self.main.mirror.verify, entity, heal=True) for entity in self.entities)

    def _wait_for_postponed(self) -> None:
        """Until the looks that failed before may be repeated."""
        with self.main.warehouse.reading() as tx:
            waits = [row[0] for row in tx.connection.exec_driver_sql("SELECT retry_at FROM rally_dirty")]
        self.sandbox.clock.advance(2.0)
        late = max((text for text in waits if text), default=None)
        if late is not None:
            left = (_parse(late) - self.sandbox.clock.now()).total_seconds()
            # The mirror knows the server's time only to the second, rounded down.
            self.sandbox.clock.advance(max(0.0, left) + 3.0)

    def _left_over(self) -> Iterator[str]:
        """What differs or should not be there any more."""
        yield from self.main.differences()[:_SHOWN]
        yield from [f"mark left: {mark[:3]}" for mark in self.main.marks()][:_SHOWN]
        with self.main.warehouse.reading() as tx:
            held = tx.rows(quarantine.select())
        for source, key, reason, *_ in held:
            if not self._may_be_quarantined(source, reason):
                yield f"in quarantine: {source} {key}: {reason}"
        yield from self._missing_entries()

    def _may_be_quarantined(self, source: str, reason: str) -> bool:
        if source == "rally.feed" and self.settings["unknown_entry_share"] and "unknown" in reason:
            return True
        return self._disturbed

    def _missing_entries(self) -> Iterator[str]:
        """The log holds every entry of the feed between its base and its cursor."""
        if self.settings["retention_seconds"] is not None or self.settings["merge_entries"]:
            return
        coverage = self.main.mirror.coverage()
        if coverage.base is None or coverage.through is None:
            return
        with self.main.warehouse.reading() as tx:
            known = {row[0] for row in tx.connection.exec_driver_sql("SELECT id FROM rally_changes")}
        for entry in self.source.api.entries():
            if Entity.of_singular(entry["entityType"]) is None:
                continue  # nobody can ask for these alone, where a group is larger than a page
            changed = _parse(entry["changedAt"])
            if (
                coverage.base + timedelta(seconds=1) <= changed <= coverage.through
                and entry["id"] not in known
            ):
                yield f"entry {entry['id']} of {entry['changedAt']} is not in the log"

    def _digest(self) -> str:
        log = (_line(entry) for entry in self.sandbox.log)
        tables = [*metadata.sorted_tables, sync_state, quarantine]
        return digest_of(log, dump(self.file, tables), dump(self.file, [leases], leaving_out=["holder"]))

    def _processes(self) -> list[Process]:
        return [self.main] if self.rival is None else [self.main, self.rival]


def play(script: Script, folder: Path) -> Verdict:
    """Play a Rally script."""
    with quick_storage(script.seed):
        return History(script, folder).play()


def _without_step(event: Event) -> Event:
    return Event(event.name, {name: value for name, value in event.arguments.items() if name != "step"})


def _parse(text: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(text)


def _line(entry: LogEntry) -> str:
    query = urlencode(entry.query, doseq=True)
    return (
        f"{entry.no} {entry.method} {entry.path}?{query} {entry.status} {entry.fault} {entry.at.isoformat()}"
    )
