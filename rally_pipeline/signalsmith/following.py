"""Follow one run, by its own id, to its end or to its deadline."""

from __future__ import annotations

from datetime import timedelta

from rally_pipeline.clock import Clock
from rally_pipeline.http.errors import ApiError, BadAnswer, NoAnswer, NotFound, ServerFailed, Throttled
from rally_pipeline.signalsmith.client import SignalSmithClient
from rally_pipeline.signalsmith.errors import RunStuck, RunVanished, when
from rally_pipeline.signalsmith.records import LIVE, Run
from rally_pipeline.signalsmith.run_history import RunHistory
from rally_pipeline.signalsmith.run_request import Notice, RunPolicy, RunRequest
from rally_pipeline.signalsmith.server_now import ServerNow

_PASSING = (NoAnswer, ServerFailed, Throttled, BadAnswer)
"""The remote is busy or away for a while; that says nothing about the run."""


class RunFollower:
    """Polls runs. Reads only, so any number may follow one run."""

    def __init__(
        self, client: SignalSmithClient, history: RunHistory, clock: Clock, now: ServerNow, notice: Notice
    ) -> None:
        self._client = client
        self._history = history
        self._clock = clock
        self._now = now
        self._notice = notice

    def follow(self, request: RunRequest, run_id: str, policy: RunPolicy, origin: str) -> tuple[Run, int]:
        """The ended run and the number of looks that it took.

        Raises:
            RunStuck: not ended by its deadline. RunVanished: it cannot be read any more.
            ApiError: the remote refuses (401, 403) or is not the API.
        """
        end = self._clock.monotonic() + policy.deadline_seconds
        pause, polls = policy.first_poll_seconds, 0
        known: Run | None = None
        while True:
            run = self._look(request, run_id)
            polls += 1
            if run is not None and (known is None or run.status != known.status):
                self._tell(run)
                self._history.record([run], origin=origin, dagster_run_id=request.dagster_run_id)
            known = run or known
            if known is not None and known.is_terminal:
                return known, polls
            left = end - self._clock.monotonic()
            if known is not None and (left <= 0 or is_overdue(known, policy, self._now)):
                raise stuck(known, policy)
            if left <= 0:
                raise RunStuck(
                    f"run {run_id} of sync {request.sync_id} could not be looked at for"
                    f" {_span(policy.deadline_seconds)}; it may still go on in SignalSmith"
                )
            self._clock.sleep(min(pause, left))
            pause = min(pause * policy.poll_growth, policy.longest_poll_seconds)

    def _look(self, request: RunRequest, run_id: str) -> Run | None:
        """The run as it is now; None where this look told nothing."""
        try:
            return self._client.get_run(request.sync_id, run_id)
        except NotFound as error:
            return self._find(request, run_id, error)
        except _PASSING as error:
            self._notice(f"run {run_id} could not be looked at, trying again: {error}")
            return None

    def _find(self, request: RunRequest, run_id: str, error: ApiError) -> Run:
        """A run that has no page of its own may still be in the list."""
        try:
            runs = self._client.list_runs(request.sync_id)
        except NotFound:
            runs = []
        for run in runs:
            if run.id == run_id:
                return run
        raise RunVanished(
            f"run {run_id} of sync {request.sync_id} does not exist any more ({error.status}): its outcome is unknown,"
            " look at the destination"
        ) from error

    def _tell(self, run: Run) -> None:
        known = run.is_terminal or run.status in LIVE
        text = f"run {run.id} is {run.status or 'without a status'}"
        self._notice(text if known else f"{text}, which is no known status: counted as not ended")


def is_overdue(run: Run, policy: RunPolicy, now: ServerNow) -> bool:
    """Whether a run that has not ended is older than the deadline."""
    return run.created_at is not None and now() - run.created_at > timedelta(seconds=policy.deadline_seconds)


def stuck(run: Run, policy: RunPolicy) -> RunStuck:
    """The error for a run that does not end."""
    return RunStuck(
        f"run {run.id} of sync {run.sync_id} is {run.status} since {when(run.created_at)}, longer than"
        f" {_span(policy.deadline_seconds)}: nothing is triggered behind it. SignalSmith has no call to cancel a run:"
        " end it there, or raise deadline_minutes in the sync's options"
    )


def _span(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"
