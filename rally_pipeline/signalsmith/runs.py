"""One request, one run: attach to the run that is there, else trigger once, then follow it to its end.

Invariants (RE5, RE6 and the trigger algorithm of the correctness design):
- A request (a tick, or a Dagster run) gets at most one run, whatever is lost or killed on the way.
- Only the id that belongs to the request is polled. `last_run_id` may move on to somebody else's run.
- Deciding is done under the sync's lease; following needs none, since it only reads.
- Time is the server's: the local clock measures spans only.
- There is no call to cancel a run: whoever stops waiting says that the remote run goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from rally_pipeline.clock import Clock, Step, SystemClock, no_step
from rally_pipeline.http.errors import NotFound
from rally_pipeline.signalsmith import tables
from rally_pipeline.signalsmith.client import SignalSmithClient
from rally_pipeline.signalsmith.errors import (
    NothingToAttach,
    OwnershipRefused,
    RunNotSucceeded,
    SignalSmithError,
    SyncGone,
    TriggerUnknown,
)
from rally_pipeline.signalsmith.following import RunFollower, is_overdue, stuck
from rally_pipeline.signalsmith.intents import MOST_UNANSWERED, Intents, State, stream_of
from rally_pipeline.signalsmith.options import Ownership
from rally_pipeline.signalsmith.records import Run, Sync
from rally_pipeline.signalsmith.run_history import RunHistory
from rally_pipeline.signalsmith.run_request import (
    ADOPTED,
    ATTACHED,
    Notice,
    RunOutcome,
    RunPolicy,
    RunRequest,
    log_notice,
)
from rally_pipeline.signalsmith.server_now import ServerNow
from rally_pipeline.signalsmith.ticks import TickWindow, tick_window
from rally_pipeline.signalsmith.triggering import RunUnderWay, Trigger

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Lease, Warehouse

_LOOK_SECONDS = 10.0
_LEASE_MARGIN_SECONDS = 300.0
_LOOKS = 4 + MOST_UNANSWERED
"""Settle times that a decision can take: for its own lost triggers and those of others."""
_UNLISTED_FOR = timedelta(minutes=10)
"""From noting an intent to the run in the list: longer than a trigger may take and a list may lag."""


@dataclass(frozen=True, slots=True)
class _Decision:
    """The run of a request; `sync` where it was read. With `first` that run must end before deciding again."""

    run_id: str
    origin: str
    sync: Sync | None = None
    first: bool = False


class SyncRunner:
    """Carries out requests for runs of one workspace's syncs."""

    def __init__(
        self,
        warehouse: Warehouse,
        client: SignalSmithClient,
        *,
        clock: Clock | None = None,
        step: Step = no_step,
        notice: Notice = log_notice,
    ) -> None:
        warehouse.create_tables(tables.metadata)
        self._warehouse = warehouse
        self._client = client
        self._clock = clock or SystemClock()
        self._step = step
        self._notice = notice
        self._now = ServerNow(client, self._clock)
        self._intents = Intents(warehouse, self._clock)
        self._trigger = Trigger(client, self._intents, self._clock, self._now, step, notice)
        history = RunHistory(warehouse, self._clock)
        self._follower = RunFollower(client, history, self._clock, self._now, notice)

    def run(self, request: RunRequest, policy: RunPolicy) -> RunOutcome:
        """Get the run of this request and follow it to its end.

        Raises:
            RunNotSucceeded: it failed or was cancelled.
            RunStuck, RunVanished, TriggerUnknown: its outcome is unknown.
            SyncGone, OwnershipRefused, NothingToAttach: there is no run and none may be started.
            ApiError, WarehouseError: the remote or the warehouse does not work.
        """
        before = self._client.http.usage
        decision, waited_for = self._decide(request, policy), None
        while decision.first:
            waited_for = decision.run_id
            self._notice(f"run {waited_for} was at work before the data changed: waiting for its end")
            self._follow(request, policy, decision)
            decision = self._decide(request, policy)
        self._notice(f"{decision.origin} run {decision.run_id}")
        run, polls = self._follow(request, policy, decision)
        if run.status != "completed":
            raise RunNotSucceeded(_failure(run), run)
        usage = self._client.http.usage - before
        return RunOutcome(run, decision.sync, decision.origin, polls, usage, waited_for)

    def _follow(self, request: RunRequest, policy: RunPolicy, decision: _Decision) -> tuple[Run, int]:
        try:
            return self._follower.follow(request, decision.run_id, policy, decision.origin)
        except SignalSmithError:
            raise
        except BaseException as error:
            self._notice(
                f"stopped watching ({type(error).__name__}): run {decision.run_id} goes on in SignalSmith, which has no"
                " call to cancel it; a retry of this request attaches to it"
            )
            raise

    def _decide(self, request: RunRequest, policy: RunPolicy) -> _Decision:
        known = self._intents.read(request.sync_id, request.key)
        if known is not None and known.run_id is not None:
            return _Decision(known.run_id, known.origin or ATTACHED)
        stream = stream_of(request.sync_id)
        patience = policy.grace_seconds + _LOOKS * policy.settle_seconds + _clock_change(request)
        with self._warehouse.lease(
            stream, wait_seconds=patience, ttl_seconds=patience + _LEASE_MARGIN_SECONDS
        ) as lease:
            return self._decide_alone(request, policy, lease)

    def _decide_alone(self, request: RunRequest, policy: RunPolicy, lease: Lease) -> _Decision:
        """The order matters: triggers that may have been sent, a run to attach to, only then a trigger."""
        intent = self._intents.read(request.sync_id, request.key)
        if intent is not None and intent.run_id is not None:
            return _Decision(intent.run_id, intent.origin or ATTACHED)
        if intent is not None and intent.state in (State.SENDING, State.UNKNOWN):
            self._notice("a trigger of this request may have been sent already: looking for its run")
            adopted = self._trigger.adopt(intent, policy, lease)
            if adopted is not None:
                return _Decision(adopted.id, ADOPTED)
        self._settle_others(request, policy, lease)
        sync = self._read_sync(request)
        found, runs = self._find_run(request, sync, policy)
        found = found or self._unlisted(request, runs)
        intent = intent or self._trigger.note(request, runs)
        if found is not None:
            if _must_end_first(request, found):
                return _Decision(found.id, ATTACHED, sync, first=True)
            self._intents.write(intent.bound(found.id, ATTACHED), lease)
            return _Decision(found.id, ATTACHED, sync)
        _check_ownership(sync, policy)
        self._client.http.check_writable(f"no run of '{sync.name or sync.id}' is triggered")
        try:
            run, origin = self._trigger.start(request, intent, policy, lease)
        except RunUnderWay as refusal:
            runs = self._client.list_runs(request.sync_id)
            live = self._live(runs, policy) or self._unlisted(request, runs)
            if live is None:
                raise refusal.error from refusal
            self._intents.write(refusal.intent.bound(live.id, ATTACHED), lease)
            return _Decision(live.id, ATTACHED, sync)
        return _Decision(run.id, origin, sync)

    def _settle_others(self, request: RunRequest, policy: RunPolicy, lease: Lease) -> None:
        """A trigger of another request whose answer was lost may have started a run that no list shows yet (RE5)."""
        since = self._now() - _UNLISTED_FOR
        for lost in self._intents.unanswered(request.sync_id, besides=request.key, since=since):
            self._notice(
                f"the answer to a trigger of request {lost.request} was lost: looking for its run first"
            )
            try:
                self._trigger.adopt(lost, policy, lease)
            except TriggerUnknown as error:
                self._notice(str(error))

    def _read_sync(self, request: RunRequest) -> Sync:
        try:
            return self._client.get_sync(request.sync_id)
        except NotFound as error:
            raise SyncGone(
                f"the sync {request.sync_id} does not exist in SignalSmith any more; materialize signalsmith/catalog"
                " to update the definitions"
            ) from error

    def _find_run(self, request: RunRequest, sync: Sync, policy: RunPolicy) -> tuple[Run | None, list[Run]]:
        """The run to attach to, and all runs as listed. For a tick SignalSmith gets some grace to start one."""
        if request.tick is None:
            runs = self._client.list_runs(request.sync_id)
            return self._live(runs, policy), runs
        window = tick_window(request.tick, request.zone, request.cron)
        claimed = self._intents.claimed(request.sync_id, besides=request.key)
        runs = self._runs_since(request, window)
        chosen = _first_of(runs, window, claimed)
        if chosen is None and sync.schedules_itself and policy.ownership is not Ownership.DRIVE:
            runs = self._wait_for_own_run(request, window, claimed, policy) or runs
            chosen = _first_of(runs, window, claimed)
        exact = TickWindow(window.tick, window.tick, window.tick)
        return chosen or _first_of(runs, exact, set()) or self._live(runs, policy), runs

    def _wait_for_own_run(
        self, request: RunRequest, window: TickWindow, claimed: set[str], policy: RunPolicy
    ) -> list[Run]:
        """Look for the run that SignalSmith's own schedule starts, until the grace after the tick is over."""
        end = window.last + timedelta(seconds=policy.grace_seconds)
        runs: list[Run] = []
        left = (end - self._now()).total_seconds()
        if left > 0:
            self._notice(f"SignalSmith runs this sync by itself: waiting up to {left:.0f} s for its run")
        while left > 0:
            self._clock.sleep(min(_LOOK_SECONDS, left))
            runs = self._runs_since(request, window)
            if _first_of(runs, window, claimed) is not None:
                break
            left = (end - self._now()).total_seconds()
        return runs

    def _live(self, runs: list[Run], policy: RunPolicy) -> Run | None:
        """A run under way; a waiting one before a working one, because it will read newer data.

        Raises:
            RunStuck: it is older than the deadline; nothing is stacked behind it.
        """
        live = [run for run in runs if not run.is_terminal]
        for run in reversed(live):
            if is_overdue(run, policy, self._now):
                raise stuck(run, policy)
        waiting = [run for run in live if run.status == "pending"]
        return next(iter([*waiting, *live]), None)

    def _unlisted(self, request: RunRequest, runs: list[Run]) -> Run | None:
        """A run under way that another request got just now and that a list which lags does not show yet (RE5)."""
        run_id = self._intents.newest_run(request.sync_id, since=self._now() - _UNLISTED_FOR)
        if run_id is None or any(run.id == run_id for run in runs):
            return None
        try:
            run = self._client.get_run(request.sync_id, run_id)
        except NotFound:
            return None
        return None if run.is_terminal else run

    def _runs_since(self, request: RunRequest, window: TickWindow) -> list[Run]:
        # an hour more: a run that began before the tick may be under way
        return self._client.list_runs(request.sync_id, since=window.first - timedelta(hours=1))


def _first_of(runs: list[Run], window: TickWindow, claimed: set[str]) -> Run | None:
    """The oldest run that began for the tick or later and that no other request has."""
    return next(
        (run for run in reversed(runs) if window.holds(run.created_at) and run.id not in claimed), None
    )


def _must_end_first(request: RunRequest, run: Run) -> bool:
    """Whether the run was at work before the data changed that this request is about."""
    if request.not_before is None or run.status == "pending" or run.is_terminal:
        return False
    return run.created_at is None or run.created_at < request.not_before


def _check_ownership(sync: Sync, policy: RunPolicy) -> None:
    """Raises where Dagster may not trigger."""
    name = f"'{sync.name or sync.id}'"
    if policy.ownership is Ownership.OBSERVE:
        raise NothingToAttach(
            f"{name} is only observed, and SignalSmith has no run of it to follow at present"
        )
    if policy.ownership is Ownership.DRIVE and sync.schedules_itself:
        raise OwnershipRefused(
            f"{name} is driven by Dagster, but its own schedule '{sync.schedule}' in SignalSmith is active too and"
            " would run it twice: pause the sync there or clear its schedule, or set `ownership: attach`"
        )


def _clock_change(request: RunRequest) -> float:
    """How much longer a tick can take to be decided on the days when the clocks change."""
    if request.tick is None:
        return 0.0
    window = tick_window(request.tick, request.zone, request.cron)
    return (window.last - window.first).total_seconds()


def _failure(run: Run) -> str:
    rows = f"{run.rows_synced} rows synced, {run.rows_failed} failed"
    reason = run.error_message[:500] or "SignalSmith gave no reason"
    return f"run {run.id} {run.status} in SignalSmith: {reason} ({rows})"
