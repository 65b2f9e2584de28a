"""The server's own activity: scheduled runs begin, runs progress and end, replayed in order up to a moment.

Nothing runs in the background: before each call the engine is brought up to the sandbox clock, event by
event, so that a virtual clock may jump a day and every tick of that day still happens, at its own time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from .cron import BadCronError, CronRule
from .store import Plan, Run, Sync, instant
from .switches import Switches


class RunEngine:
    """Syncs, their runs, and the events still to come."""

    def __init__(
        self, dice: random.Random, switches: Switches, workspace_id: str, zone: str, now: datetime
    ) -> None:
        self.switches = switches
        self.workspace_id = workspace_id
        self.zone = zone
        self.syncs: dict[str, Sync] = {}
        self.runs: dict[str, Run] = {}
        self.started: list[tuple[datetime, str, str]] = []
        """Every run ever made as (when, sync id, run id), also those that retention has removed."""
        self._dice = dice
        self._now = now
        self._events: list[tuple[datetime, int, str, str, int]] = []
        self._ticks: dict[str, Iterator[datetime]] = {}
        self._made = 0

    def add(self, sync: Sync) -> None:
        """A new sync, planned from now on."""
        self.syncs[sync.id] = sync
        self.replan(sync)

    def replan(self, sync: Sync) -> None:
        """Plan the sync's next tick after its status or schedule changed."""
        sync.version += 1
        self._ticks.pop(sync.id, None)
        if not sync.schedules_itself:
            return
        try:
            rule = CronRule.read(str(sync.fields["schedule"]))
        except BadCronError:
            return  # a hostile catalog holds expressions that the server itself would refuse; they never fire
        zone = ZoneInfo(self.zone)
        self._ticks[sync.id] = rule.ticks(
            self._now, zone, gap=self.switches.dst_gap, fold=self.switches.dst_fold
        )
        self._plan_tick(sync)

    def replan_all(self) -> None:
        """After a change of zone or switches."""
        for sync in self.syncs.values():
            self.replan(sync)

    def settle(self, now: datetime) -> None:
        """Let everything happen that is due by `now`."""
        while self._events and self._events[0][0] <= now:
            at, _, kind, key, version = heapq.heappop(self._events)
            self._now = max(self._now, at)
            if kind == "tick":
                self._tick(key, version, at)
            else:
                self._advance(self.runs.get(key), at)
        self._now = max(self._now, now)
        self._forget_old(now)

    def start(self, sync: Sync, at: datetime, triggered_by: str | None) -> Run:
        """Make a run; it waits behind one that is under way."""
        self._made += 1
        plan = sync.plans.pop(0) if sync.plans else self.usual_plan()
        run = Run(self._run_id(), sync.id, self.workspace_id, at, triggered_by, plan)
        self.runs[run.id] = run
        sync.runs.append(run.id)
        self.started.append((at, sync.id, run.id))
        sync.fields["last_run_id"] = run.id
        if len(self.live(sync)) == 1:
            self._queue(run, at)
        return run

    def live(self, sync: Sync) -> list[Run]:
        """Runs that are not over, oldest first."""
        found = (self.runs.get(run_id) for run_id in sync.runs[-50:])
        return [run for run in found if run is not None and run.is_live]

    def finish(self, run: Run, at: datetime, outcome: str, error: str = "") -> None:
        """End a run now, as planned or by a test."""
        if not run.is_live:
            return
        sync = self.syncs.get(run.sync_id)
        run.status, run.completed, run.error_message = outcome, at, error
        if outcome == "completed":
            run.rows_synced = run.plan.rows - run.plan.failed_rows
            run.rows_failed = run.plan.failed_rows
            run.row_errors = [{"row": str(n), "error": "refused"} for n in range(min(run.rows_failed, 100))]
        if sync is None:
            return
        if outcome == "completed":
            sync.fields["last_synced_at"] = instant(at)
            if sync.fields["status"] == "error":
                self._set_status(sync, "active", "")
        elif outcome == "failed" and self.switches.error_after_failure and sync.fields["status"] == "active":
            self._set_status(sync, "error", error)
        waiting = self.live(sync)
        if waiting:
            self._queue(waiting[0], at)

    def usual_plan(self) -> Plan:
        """A run as the switches describe it, a little different each time."""
        spread = self._dice.uniform(0.8, 1.2)
        return Plan(
            queue_seconds=self.switches.queue_seconds,
            run_seconds=self.switches.run_seconds * spread,
            outcome="completed",
            rows=max(self.switches.failed_rows, int(self.switches.rows * spread)),
            failed_rows=self.switches.failed_rows,
            error="",
        )

    def forget(self, run_id: str) -> None:
        """Remove a run, as retention does."""
        run = self.runs.pop(run_id, None)
        if run is not None and run.sync_id in self.syncs:
            self.syncs[run.sync_id].runs.remove(run_id)

    def _tick(self, sync_id: str, version: int, at: datetime) -> None:
        sync = self.syncs.get(sync_id)
        if sync is None or sync.version != version:
            return
        self._plan_tick(sync)
        waiting = [run for run in self.live(sync) if run.status == "pending"]
        # runs of one sync never overlap, and no second one waits in the queue
        if self.switches.scheduler and not waiting:
            self.start(sync, at, self.switches.scheduled_by)

    def _plan_tick(self, sync: Sync) -> None:
        tick = next(self._ticks[sync.id], None)
        if tick is not None:
            late = timedelta(seconds=self.switches.scheduler_delay_seconds)
            self._push(tick + late, "tick", sync.id, sync.version)

    def _queue(self, run: Run, at: datetime) -> None:
        if run.plan.stuck != "pending":
            run.begins = at + timedelta(seconds=run.plan.queue_seconds)
            self._push(run.begins, "run", run.id, 0)

    def _advance(self, run: Run | None, at: datetime) -> None:
        if run is None or not run.is_live:
            return
        if run.status == "pending":
            run.status = "running"
            if run.plan.stuck != "running":
                run.ends = at + timedelta(seconds=run.plan.run_seconds)
                self._push(run.ends, "run", run.id, 0)
        else:
            self.finish(run, at, run.plan.outcome, run.plan.error)

    def _set_status(self, sync: Sync, status: str, error: str) -> None:
        sync.fields |= {"status": status, "status_error": error}
        self.replan(sync)

    def _push(self, at: datetime, kind: str, key: str, version: int) -> None:
        self._made += 1
        heapq.heappush(self._events, (at, self._made, kind, key, version))

    def _forget_old(self, now: datetime) -> None:
        if self.switches.retention_seconds is None:
            return
        oldest = now - timedelta(seconds=self.switches.retention_seconds)
        for run in [
            run for run in self.runs.values() if run.completed is not None and run.completed < oldest
        ]:
            self.forget(run.id)

    def _run_id(self) -> str:
        """Like the ids of the documentation: shaped as a UUID, but with 7 digits in the first group."""
        number = self._dice.getrandbits(124)
        digits = f"{number:031x}"
        return f"{digits[:7]}-{digits[7:11]}-{digits[11:15]}-{digits[15:19]}-{digits[19:31]}"


def planned(engine: RunEngine, **parts: object) -> Plan:
    """The usual plan with some parts set. Raises `TypeError` for an unknown part."""
    return replace(engine.usual_plan(), **parts)  # type: ignore[arg-type]
