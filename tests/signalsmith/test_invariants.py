"""Each invariant of the triggers, broken on purpose: the run stops, names it, and no trigger follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.signalsmith import runs
from rally_pipeline.signalsmith.client import SignalSmithClient
from rally_pipeline.signalsmith.intents import Intent, Intents, State
from rally_pipeline.signalsmith.runs import SyncRunner
from tests.contents import contents
from tests.signalsmith.bench import Bench

Patch = pytest.MonkeyPatch


def stops(bench: Bench, name: str, act: Callable[[], object], *, triggers: int) -> str:
    """The message; `triggers` were sent in all, and the step that broke the promise wrote nothing."""
    committed = [contents(bench.warehouse)]

    def watch(step: str) -> None:
        if step.startswith("signalsmith.intent") and step.endswith(":after-commit"):
            committed.append(contents(bench.warehouse))

    bench.step = watch
    with pytest.raises(InvariantViolation, match=f"invariant {name} does not hold") as stopped:
        act()
    assert len(bench.requests("/trigger")) == triggers
    assert contents(bench.warehouse) == committed[-1]
    return str(stopped.value)


def prepared(bench: Bench) -> str:
    sync_id = bench.make_sync()
    bench.runner()
    return sync_id


@pytest.mark.invariant("RE1")
def test_a_run_of_another_sync_is_not_taken_for_ours(bench: Bench, monkeypatch: Patch) -> None:
    sync_id = prepared(bench)
    trigger = SignalSmithClient.trigger

    def mistaken(self: SignalSmithClient, wanted: str) -> Any:
        return replace(trigger(self, wanted), sync_id="another")

    monkeypatch.setattr(SignalSmithClient, "trigger", mistaken)
    assert "is of sync another" in stops(bench, "RE1", lambda: bench.run(sync_id), triggers=1)
    # The intent stays `sending`, so that the next attempt looks for the run that was started.
    monkeypatch.setattr(SignalSmithClient, "trigger", trigger)
    assert bench.run(sync_id).origin == "adopted"
    assert len(bench.requests("/trigger")) == 1


@pytest.mark.invariant("RE1")
def test_a_request_is_not_bound_without_a_run(bench: Bench, monkeypatch: Patch) -> None:
    sync_id = prepared(bench)
    monkeypatch.setattr(Intent, "sending", lambda self: replace(self, state=State.BOUND))
    stops(bench, "RE1", lambda: bench.run(sync_id), triggers=0)


@pytest.mark.invariant("RE2")
def test_nothing_is_triggered_that_was_not_written_down(bench: Bench, monkeypatch: Patch) -> None:
    sync_id = prepared(bench)
    monkeypatch.setattr(Intents, "write", lambda _self, intent, _lease: intent)
    assert "not stored" in stops(bench, "RE2", lambda: bench.run(sync_id), triggers=0)


@pytest.mark.invariant("RE5")
def test_who_holds_the_lease_of_another_sync_decides_nothing(bench: Bench, monkeypatch: Patch) -> None:
    sync_id = prepared(bench)
    monkeypatch.setattr(runs, "stream_of", lambda _: "signalsmith.another")
    stops(bench, "RE5", lambda: bench.run(sync_id), triggers=0)


@pytest.mark.invariant("RE6")
def test_a_tick_that_has_a_run_gets_no_other(bench: Bench, monkeypatch: Patch) -> None:
    sync_id = prepared(bench)
    bench.run(sync_id, key="tick:1")
    decide = SyncRunner._decide_alone

    def forgetful(self: SyncRunner, *more: Any) -> Any:
        monkeypatch.setattr(self._intents, "read", lambda *_: None)
        return decide(self, *more)

    monkeypatch.setattr(SyncRunner, "_decide", _alone)
    monkeypatch.setattr(SyncRunner, "_decide_alone", forgetful)
    stops(bench, "RE6", lambda: bench.run(sync_id, key="tick:1"), triggers=1)
    assert len(bench.run_ids(sync_id)) == 1


def _alone(runner: SyncRunner, request: Any, policy: Any) -> Any:
    """Decide without asking first whether the request has its run."""
    with runner._warehouse.lease(runs.stream_of(request.sync_id)) as lease:
        return runner._decide_alone(request, policy, lease)
