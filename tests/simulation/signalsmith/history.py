"""Plays one history of triggers with the real runner, and holds it against RE5 and RE6."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from rally_pipeline.http.errors import ApiError, Conflict, Rejected
from rally_pipeline.signalsmith import tables
from rally_pipeline.signalsmith.errors import (
    NothingToAttach,
    OwnershipRefused,
    RunNotSucceeded,
    TriggerUnknown,
)
from rally_pipeline.signalsmith.options import Ownership
from rally_pipeline.signalsmith.records import TERMINAL
from rally_pipeline.signalsmith.run_request import RunPolicy, RunRequest
from rally_pipeline.warehouse import Warehouse, WarehouseError
from tests.simulation.script import Event, Script, Verdict, digest_of
from tests.simulation.signalsmith.generator import DEFAULTS
from tests.simulation.signalsmith.workspace import Killed, Process, Workspace
from tests.simulation.storage import dump, quick_storage

TICK_SECONDS = 600
CRON = "*/10 * * * *"
_GIVEN_UP = (RunNotSucceeded, TriggerUnknown, OwnershipRefused, NothingToAttach, Rejected, Conflict)
"""Definite ends: repeating the request would not change them."""


@dataclass
class Wanted:
    """One request and what became of it."""

    request: RunRequest
    caused: list[str] = field(default_factory=list)
    """Runs that calls for this request started."""
    end: str = ""
    """Empty while a retry is due."""
    ended_with_a_run: bool = False
    """Such an end is final; another one may still change, as where a sync is only observed."""


def play(script: Script, folder: Path) -> Verdict:
    """Play the events, bring every request to its end, and compare with the remote's own books."""
    with quick_storage(script.seed):
        return History(script, folder).play()


class History:
    """One sync, and the requests for runs of it."""

    def __init__(self, script: Script, folder: Path) -> None:
        self.script = script
        settings = {**DEFAULTS, **script.settings}
        self.policy = RunPolicy(ownership=Ownership(settings.pop("ownership")))
        self.world = Workspace(folder, script.seed, **settings)
        self.world.caused = self.note_caused
        self.wanted: dict[str, Wanted] = {}
        self.at_work: list[Wanted] = []
        """Requests being worked on, the innermost last: whose call a trigger is."""
        self.last_tick = 0.0
        self.crashes = 0
        self.steps = 0
        self.problems: list[str] = []

    def play(self) -> Verdict:
        for event in self.script.events:
            self.happen(event)
        self.calm_down()
        self.check_history()
        requests = (
            f"{entry.method} {entry.path} {entry.query} {entry.status}" for entry in self.world.sandbox.log
        )
        stored = (tables.intents, tables.runs)
        lines = dump(self.world.folder / "warehouse.db", stored) if self.wanted else ()
        digest = digest_of(requests, lines)
        return Verdict(self.problems, digest, self.world.sandbox.log.total, self.crashes, self.steps)

    # ------------------------------------------------------------------ events

    def happen(self, event: Event) -> None:
        """Play one event."""
        handler: Callable[[Mapping[str, Any]], None] = getattr(self, f"on_{event.name}")
        handler(event.arguments)

    def on_tick(self, arguments: Mapping[str, Any]) -> None:
        self.work(self.next_tick(arguments["late"]), arguments)

    def on_manual(self, arguments: Mapping[str, Any]) -> None:
        self.work(self.want(f"run:{len(self.wanted)}"), arguments)

    def on_retry(self, arguments: Mapping[str, Any]) -> None:
        """The orchestrator repeats a request that failed; or, as after a lost answer of its own, one that ended."""
        open_ones = [one for one in self.wanted.values() if not one.end]
        again = [*open_ones, *self.wanted.values()]
        if again:
            self.work(again[0], arguments)

    def on_twice(self, arguments: Mapping[str, Any]) -> None:
        """Within the run for a tick another process begins with the same tick, or with a request of its own."""
        first = self.next_tick(0)

        def begin_second() -> None:
            self.world.clock.advance(arguments["pause"])
            self.work(first if arguments["same"] else self.want(f"run:{len(self.wanted)}"), {})

        self.work(first, arguments, between=(arguments["at"], begin_second))

    def on_somebody(self, arguments: Mapping[str, Any]) -> None:
        self.start_elsewhere(arguments["by"])

    def on_overtaken(self, arguments: Mapping[str, Any]) -> None:
        """Somebody starts a run, and shortly after that the answer to a trigger of ours is lost."""
        self.start_elsewhere(arguments["by"])
        self.world.clock.advance(arguments["seconds"])
        self.world.control("finish_run", run=self.world.api.engine.started[-1][2])
        self.world.sandbox.faults.add(arguments["fault"], method="POST", path="*/trigger")
        self.work(self.want(f"run:{len(self.wanted)}"), arguments)

    def on_plan(self, arguments: Mapping[str, Any]) -> None:
        failed = min(arguments["failed_rows"], arguments["rows"])
        self.world.control("plan_run", sync=self.world.sync_id, **{**arguments, "failed_rows": failed})

    def on_fault(self, arguments: Mapping[str, Any]) -> None:
        chosen = {name: arguments[name] for name in ("path", "after", "times")}
        self.world.sandbox.faults.add(arguments["fault"], **chosen)

    def on_outage(self, arguments: Mapping[str, Any]) -> None:
        """The remote is away while a request is made."""
        if arguments["refused"]:
            self.world.transport.refusing = True
        else:
            self.world.sandbox.faults.add("status_503", times=None, for_seconds=arguments["seconds"])
        self.work(self.want(f"run:{len(self.wanted)}"), {})
        self.world.transport.refusing = False
        self.world.clock.advance(arguments["seconds"])

    def on_pause(self, arguments: Mapping[str, Any]) -> None:
        self.world.control("edit_sync", sync=self.world.sync_id, fields={"status": arguments["status"]})

    def on_wait(self, arguments: Mapping[str, Any]) -> None:
        self.world.clock.advance(arguments["seconds"])

    # ------------------------------------------------------------------ requests

    def next_tick(self, late: float) -> Wanted:
        """The next tick of the schedule, for which a Dagster run begins so much later."""
        now = self.world.clock.now().timestamp()
        tick = max(self.last_tick, now - now % TICK_SECONDS) + TICK_SECONDS
        self.last_tick = tick
        self.world.clock.advance(max(0.0, tick + late - now))
        moment = datetime.fromtimestamp(tick, UTC)
        return self.want(f"tick:{moment.isoformat()}", tick=moment, cron=CRON)

    def want(self, key: str, **more: Any) -> Wanted:
        """A request; the same key is the same request."""
        if key not in self.wanted:
            named = f"dagster-{len(self.wanted)}"
            request = RunRequest(self.world.sync_id, key, dagster_run_id=named, **more)
            self.wanted[key] = Wanted(request)
        return self.wanted[key]

    def work(
        self,
        wanted: Wanted,
        arguments: Mapping[str, Any],
        *,
        between: tuple[int, Callable[[], None]] | None = None,
    ) -> None:
        """One process works on a request, until it ends, gives up or dies."""
        process = Process(self.world, crash=arguments.get("crash", 0))
        if "meanwhile" in arguments:
            process.between = (arguments["meanwhile"], lambda: self.start_elsewhere("somebody"))
        process.between = between or process.between
        self.at_work.append(wanted)
        try:
            with closing(process):
                outcome = process.run(wanted.request, self.policy)
            self.take_end(wanted, "completed", outcome.run)
        except Killed:
            self.crashes += 1
        except RunNotSucceeded as error:
            self.take_end(wanted, error.run.status, error.run)
        except _GIVEN_UP as error:
            wanted.end = wanted.end or type(error).__name__
        except (ApiError, WarehouseError) as error:
            self.last_error = f"{type(error).__name__}: {error}"
        finally:
            self.at_work.pop()
            self.steps += len(process.steps)

    def start_elsewhere(self, by: str | None) -> None:
        """Somebody starts a run in SignalSmith itself, perhaps under the account that our token belongs to."""
        kept, self.world.caused = self.world.caused, lambda _run_id: None
        self.world.control("start_run", sync=self.world.sync_id, triggered_by=by)
        self.world.caused = kept

    # ------------------------------------------------------------------ checks

    def note_caused(self, run_id: str) -> None:
        """A trigger of ours was applied: is it the only one of its request, and the only one of ours at work?"""
        wanted = self.at_work[-1]
        ours = {run for one in self.wanted.values() for run in one.caused}
        stacked = [run for run in self.world.live_before if run in ours]
        wanted.caused.append(run_id)
        if stacked:
            self.problems.append(
                f"RE5: {wanted.request.key} started a run while our {stacked[0]} was at work"
            )
        if len(wanted.caused) > 1:
            self.problems.append(f"RE6: {wanted.request.key} caused {len(wanted.caused)} runs")
        if self.policy.ownership is Ownership.OBSERVE:
            self.problems.append(f"{wanted.request.key} triggered a sync that is only observed")
        if (
            self.policy.ownership is Ownership.DRIVE
            and self.world.api.find(self.world.sync_id).schedules_itself
        ):
            self.problems.append(f"{wanted.request.key} triggered a sync that schedules itself")

    def take_end(self, wanted: Wanted, status: str, run: Any) -> None:
        """A request ended with a run: is it the right one, over, and with the remote's numbers?"""
        key = wanted.request.key
        end = f"{status} {run.id}"
        if wanted.ended_with_a_run and wanted.end != end:
            self.problems.append(f"{key} ended as '{wanted.end}' and later as '{end}'")
        wanted.end, wanted.ended_with_a_run = end, True
        if wanted.caused and run.id != wanted.caused[0]:
            self.problems.append(f"{key} followed {run.id}, but its own run is {wanted.caused[0]}")
        remote = self.world.api.engine.runs[run.id]
        theirs = (remote.status, remote.rows_synced, remote.rows_failed)
        ours = (status, run.rows_synced, run.rows_failed)
        if theirs != ours:
            self.problems.append(f"{key} reports {ours} for {run.id}, the remote {theirs}")

    def calm_down(self) -> None:
        """Faults stop; every request that is still open is repeated until it has an end."""
        world = self.world
        world.sandbox.faults.clear()
        world.transport.refusing = False
        for wanted in list(self.wanted.values()):
            for _ in range(3):
                if wanted.end:
                    break
                world.clock.advance(3_600)
                self.work(wanted, {})
            if not wanted.end:
                self.problems.append(f"{wanted.request.key} has no end: {self.last_error}")
            if wanted.end == "TriggerUnknown" and not self.was_doubtful(wanted):
                self.problems.append(f"{wanted.request.key} is unknown, although no trigger was ever sent")

    def was_doubtful(self, wanted: Wanted) -> bool:
        """Whether a trigger was sent for the request at all."""
        posts = self.world.sandbox.log.matching(method="POST", path="*/trigger")
        return bool(wanted.caused or posts)

    def check_history(self) -> None:
        """The run history in the warehouse tells of ended runs what the remote tells."""
        if not self.wanted:
            return
        url = f"sqlite:///{self.world.folder / 'warehouse.db'}"
        columns = tables.runs.c
        query = select(columns.id, columns.status, columns.rows_synced, columns.rows_failed)
        with Warehouse.open(url, clock=self.world.local) as warehouse, warehouse.reading() as tx:
            rows = tx.rows(query) if warehouse_has_runs(tx) else []
        for run_id, *numbers in rows:
            remote = self.world.api.engine.runs[run_id]
            theirs = [remote.status, remote.rows_synced, remote.rows_failed]
            if numbers[0] in TERMINAL and numbers != theirs:
                self.problems.append(f"the history says {numbers} of {run_id}, the remote {theirs}")


def warehouse_has_runs(tx: Any) -> bool:
    """Whether any process lived long enough to create the table."""
    found = tx.connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'signalsmith_runs'")
    return found.first() is not None
