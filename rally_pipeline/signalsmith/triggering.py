"""Start a run exactly once: intent first, then the call, then, if its answer is lost, a look at the list.

A trigger is not idempotent and the API has no key to make it so. What was there before and the server's time before
the call are stored first; a run that is newer than both, and nobody else's, is the one that the lost call started.
"""

from __future__ import annotations

from dataclasses import replace

from rally_pipeline.clock import Clock, Step
from rally_pipeline.http.errors import (
    ApiError,
    BadAnswer,
    Conflict,
    NoAnswer,
    Rejected,
    ServerFailed,
    Throttled,
)
from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.signalsmith.client import SignalSmithClient
from rally_pipeline.signalsmith.errors import TriggerUnknown
from rally_pipeline.signalsmith.intents import Intent, Intents, State
from rally_pipeline.signalsmith.records import Run
from rally_pipeline.signalsmith.run_request import ADOPTED, TRIGGERED, Notice, RunPolicy, RunRequest
from rally_pipeline.signalsmith.server_now import ServerNow
from rally_pipeline.signalsmith.ticks import EARLY
from rally_pipeline.warehouse import FenceLost, Lease

MOST_TRIGGERS = 2
"""Calls that may have been applied. After the second one without a trace a person must look."""

_MOST_REFUSALS = 4


class RunUnderWay(Exception):
    """SignalSmith refused the trigger, perhaps because a run is under way; `error` is its answer."""

    def __init__(self, intent: Intent, error: ApiError) -> None:
        super().__init__(str(error))
        self.intent = intent
        self.error = error


class Trigger:
    """Starts runs. Every method needs the sync's lease."""

    def __init__(
        self,
        client: SignalSmithClient,
        intents: Intents,
        clock: Clock,
        now: ServerNow,
        step: Step,
        notice: Notice,
    ) -> None:
        self._client = client
        self._intents = intents
        self._clock = clock
        self._now = now
        self._step = step
        self._notice = notice

    def start(self, request: RunRequest, intent: Intent, policy: RunPolicy, lease: Lease) -> tuple[Run, str]:
        """The started or adopted run and its origin.

        Raises:
            RunUnderWay: refused with 409 or another 4xx; nothing was started.
            TriggerUnknown: it cannot be told whether or which run was started.
            ApiError: it is certain that nothing was started.
            FenceLost: this process stood still for so long that another one may have taken the sync over.
        """
        current = intent
        while current.attempts < MOST_TRIGGERS:
            own_until = self._clock.monotonic() + lease.ttl_seconds
            current = self._intents.write(current.sending(), lease)
            try:
                run = self._send(request, current, lease, own_until)
            except (Conflict, Rejected) as error:
                raise RunUnderWay(self._not_sent(current, lease), error) from error
            except ApiError as error:
                if not _may_be_applied(error):
                    self._not_sent(current, lease)
                    raise
                self._notice(f"no answer to the trigger ({error}): looking for its run")
                adopted = self.adopt(current, policy, lease)
                if adopted is not None:
                    return adopted, ADOPTED
            else:
                self._bind(current, run, TRIGGERED, lease)
                return run, TRIGGERED
        raise TriggerUnknown(
            f"{current.attempts} triggers of sync {request.sync_id} got no answer and no run has appeared: look in"
            " SignalSmith; materialize again to try once more"
        )

    def adopt(self, intent: Intent, policy: RunPolicy, lease: Lease) -> Run | None:
        """The run that a lost trigger started; None where none has appeared after the settle time.

        Raises:
            TriggerUnknown: there are several.
        """
        # A look before the settle time is over may show somebody else's run and not ours yet.
        self._clock.sleep(policy.settle_seconds)
        newer = self._newer(intent)
        if not newer:
            return None
        if len(newer) == 1:
            self._bind(intent, newer[0], ADOPTED, lease)
            return newer[0]
        self._intents.write(replace(intent, state=State.UNKNOWN), lease)
        ids = ", ".join(run.id for run in newer[:5])
        raise TriggerUnknown(
            f"the answer to a trigger of sync {intent.sync_id} was lost and {len(newer)} runs began since"
            f" ({ids}): look in SignalSmith which one counts; materialize again to attach to a live one"
        )

    def note(self, request: RunRequest, runs: list[Run]) -> Intent:
        """A new intent: the runs that are there now, and the server's time."""
        return Intent(
            request.sync_id,
            request.key,
            State.REFUSED,
            0,
            self._now(),
            tuple(run.id for run in runs),
            dagster_run_id=request.dagster_run_id,
        )

    def _newer(self, intent: Intent) -> list[Run]:
        """Runs since the intent that are nobody else's. Of several, those that a person or token started.

        Another request may have attached to our run meanwhile: that does not make it the other one's.
        """
        claimed = self._intents.claimed(intent.sync_id, besides=intent.request)
        started = self._intents.claimed(intent.sync_id, besides=intent.request, origins=(TRIGGERED, ADOPTED))
        newer = [
            run
            for run in self._client.list_runs(intent.sync_id, since=intent.noted_at - EARLY)
            if run.id not in intent.noted_runs
            and run.id not in started
            and (run.id not in claimed or run.triggered_by)
            and (run.created_at is None or run.created_at >= intent.noted_at - EARLY)
        ]
        started_by_call = [run for run in newer if run.triggered_by]
        return started_by_call if len(started_by_call) == 1 else newer

    def _bind(self, intent: Intent, run: Run, origin: str, lease: Lease) -> None:
        if run.sync_id != intent.sync_id:
            raise InvariantViolation("RE1", f"run {run.id} is of sync {run.sync_id}, not of {intent.sync_id}")
        self._intents.write(intent.bound(run.id, origin), lease)

    def _send(self, request: RunRequest, intent: Intent, lease: Lease, own_until: float) -> Run:
        """One trigger, sent again only where it is certain that the last one was not applied.

        Not after `own_until` (monotonic seconds): no fence protects the remote from a process that was stopped
        after its intent, lost its lease meanwhile, and wakes up.
        """
        stored = self._intents.read(request.sync_id, request.key)
        written = stored is not None and (stored.state, stored.attempts) == (State.SENDING, intent.attempts)
        if not written:
            raise InvariantViolation(
                "RE2",
                f"a trigger of sync {request.sync_id} would be sent while its intent is"
                f" {stored.state if stored is not None else 'not stored'}",
            )
        refusals = 0
        while True:
            self._step("signalsmith.trigger:before")
            if self._clock.monotonic() >= own_until:
                raise FenceLost(lease.stream, lease.fence)
            try:
                run = self._client.trigger(request.sync_id)
            except (Throttled, NoAnswer) as error:
                refusals += 1
                if _may_be_applied(error) or refusals > _MOST_REFUSALS:
                    raise
                wait = (error.wait_seconds or 30.0) if isinstance(error, Throttled) else 2.0**refusals
                self._notice(f"the trigger was not taken ({error}): next attempt in {wait:.0f} s")
                self._clock.sleep(wait)
            else:
                self._step("signalsmith.trigger:after")
                return run

    def _not_sent(self, intent: Intent, lease: Lease) -> Intent:
        """The definite no is stored, so that a later attempt need not look for a run."""
        refused = replace(intent, state=State.REFUSED, attempts=intent.attempts - 1)
        return self._intents.write(refused, lease)


def _may_be_applied(error: ApiError) -> bool:
    if isinstance(error, NoAnswer):
        return error.sent
    return isinstance(error, ServerFailed | BadAnswer)
