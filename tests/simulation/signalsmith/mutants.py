"""Known ways to spoil the triggers; each one has to make a history fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

from rally_pipeline.http.errors import NoAnswer, ServerFailed
from rally_pipeline.signalsmith.client import SignalSmithClient
from rally_pipeline.signalsmith.intents import Intent, Intents
from rally_pipeline.signalsmith.records import Run
from rally_pipeline.signalsmith.run_request import RunPolicy, RunRequest
from rally_pipeline.signalsmith.runs import SyncRunner
from rally_pipeline.signalsmith.triggering import Trigger
from tests.simulation.script import Mutant, patched

_trigger = SignalSmithClient.trigger
_run = SyncRunner.run


@contextmanager
def no_intents() -> Iterator[None]:
    def send(self: Trigger, request: RunRequest, *_: Any) -> Run:
        """Without the check that the intent is stored, which would notice."""
        self._step("signalsmith.trigger:before")
        return self._client.trigger(request.sync_id)

    def forget(_self: Intents, intent: Intent, _lease: Any) -> Intent:
        return intent

    with patched(Intents, read=lambda *_: None, write=forget), patched(Trigger, _send=send):
        yield


@contextmanager
def blind_resend() -> Iterator[None]:
    def trigger(self: SignalSmithClient, sync_id: str) -> Run:
        try:
            return _trigger(self, sync_id)
        except (NoAnswer, ServerFailed):
            return _trigger(self, sync_id)

    with patched(SignalSmithClient, trigger=trigger):
        yield


@contextmanager
def no_time_bound() -> Iterator[None]:
    def newer(self: Trigger, intent: Intent) -> list[Run]:
        claimed = self._intents.claimed(intent.sync_id, besides=intent.request)
        runs = self._client.list_runs(intent.sync_id)
        return [run for run in runs if run.id not in intent.noted_runs and run.id not in claimed]

    with patched(Trigger, _newer=newer):
        yield


@contextmanager
def tick_key_ignored() -> Iterator[None]:
    numbers = count()

    def run(self: SyncRunner, request: RunRequest, policy: RunPolicy) -> Any:
        return _run(self, replace(request, key=f"{request.key}#{next(numbers)}"), policy)

    with patched(SyncRunner, run=run):
        yield


MUTANTS = (
    Mutant("no-intents", "remembers nothing of a trigger", no_intents, 200),
    Mutant("blind-resend", "sends a trigger again when its answer is lost", blind_resend, 200),
    Mutant("no-time-bound", "adopts a run whenever it began", no_time_bound, 1000),
    Mutant(
        "tick-key-ignored", "takes each attempt at a tick for a request of its own", tick_key_ignored, 200
    ),
)
