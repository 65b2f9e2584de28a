"""A run is followed by its own id, with growing pauses, to its end or its deadline."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import select

from rally_pipeline.http.errors import Forbidden, Unauthorized
from rally_pipeline.signalsmith import tables
from rally_pipeline.signalsmith.errors import RunNotSucceeded, RunStuck, RunVanished
from rally_pipeline.signalsmith.run_request import RunPolicy
from tests.signalsmith.bench import Bench

MakeBench = Callable[..., Bench]


def polls(bench: Bench, run_id: str) -> list[float]:
    """Seconds between the looks at a run."""
    times = [entry.at for entry in bench.sandbox.log if entry.path.endswith(run_id)]
    return [(later - earlier).total_seconds() for earlier, later in pairwise(times)]


def test_the_pause_between_looks_grows_and_stays_bounded(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, run_seconds=600.0)
    outcome = bench.run(sync_id)
    pauses = polls(bench, outcome.run.id)
    assert pauses[:4] == [5.0, 7.5, 11.25, 16.875]
    assert max(pauses) == 30.0
    assert outcome.polls == len(pauses) + 1
    assert outcome.polls < 30  # ten minutes cost fewer than 3 requests a minute


def test_only_the_own_run_is_looked_at_although_last_run_id_moves_on(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, run_seconds=120.0)
    bench.before_request(3, lambda: bench.control("start_run", sync=sync_id), method="GET", path="*/runs/*")
    outcome = bench.run(sync_id)
    mine, other = bench.run_ids(sync_id)
    assert outcome.run.id == mine
    assert not [path for _, path in bench.requests() if path.endswith(other)]


def test_a_failed_run_fails_with_the_remote_message(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, outcome="failed", error="warehouse\nunreachable")
    with pytest.raises(RunNotSucceeded, match="failed in SignalSmith: warehouse unreachable") as caught:
        bench.run(sync_id)
    assert caught.value.run.status == "failed"


def test_a_remote_message_that_echoes_a_token_is_masked_and_kept_on_one_line(bench: Bench) -> None:
    token = bench.settings.signalsmith_api_token
    assert token is not None
    echoed = f"denied for Bearer abcdef123456 and {token.get_secret_value()}\n\x1b[31m" + "x" * 5000
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, outcome="failed", error=echoed)
    with pytest.raises(RunNotSucceeded) as caught:
        bench.run(sync_id)
    shown = str(caught.value)
    assert token.get_secret_value() not in shown
    assert "abcdef123456" not in shown
    assert shown.isprintable()
    assert len(shown) < 800
    with bench.warehouse.reading() as transaction:
        (stored,) = transaction.rows(select(tables.runs.c.error_message))[0]
    assert token.get_secret_value() not in stored


def test_a_cancelled_run_fails_and_says_so(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.before_request(
        2,
        lambda: bench.control("cancel_run", run=bench.run_ids(sync_id)[0]),
        method="GET",
        path="*/runs/*",
    )
    with pytest.raises(RunNotSucceeded, match="cancelled in SignalSmith: SignalSmith gave no reason"):
        bench.run(sync_id)


@pytest.mark.fault("R4")
def test_completed_with_failed_rows_is_a_success_with_both_numbers(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, rows=100, failed_rows=40)
    outcome = bench.run(sync_id)
    assert outcome.counts()["rows_failed"] == 40
    assert outcome.run.failed_share == pytest.approx(0.4)


@pytest.mark.fault("R13")
@pytest.mark.parametrize("stuck", ["pending", "running"])
def test_a_stuck_run_ends_at_the_deadline_with_a_message(bench: Bench, stuck: str) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, stuck=stuck)
    before = bench.clock.now()
    with pytest.raises(RunStuck, match="no call to cancel"):
        bench.run(sync_id, policy=RunPolicy(deadline_seconds=1800.0))
    assert timedelta(seconds=1800) <= bench.clock.now() - before < timedelta(seconds=1900)


def test_the_deadline_counts_from_the_runs_beginning_also_after_a_retry(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, stuck="running")
    for _ in range(2):
        with pytest.raises(RunStuck):
            bench.run(sync_id, "run:1", RunPolicy(deadline_seconds=1800.0))
    assert (bench.clock.now() - bench.started(sync_id)[0]).total_seconds() < 1900
    assert len(bench.started(sync_id)) == 1


@pytest.mark.fault("R12")
def test_a_vanished_run_has_an_unknown_outcome(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.before_request(
        2,
        lambda: bench.control("forget_run", run=bench.run_ids(sync_id)[0]),
        method="GET",
        path="*/runs/*",
    )
    with pytest.raises(RunVanished, match="its outcome is unknown"):
        bench.run(sync_id)


def test_a_sync_deleted_during_the_run_leaves_an_unknown_outcome(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.before_request(2, lambda: bench.control("remove_sync", sync=sync_id), method="GET", path="*/runs/*")
    with pytest.raises(RunVanished):
        bench.run(sync_id)


@pytest.mark.parametrize("fault", ["status_500", "lost_answer", "html_200", "cut_body", "always_429"])
def test_trouble_while_polling_is_no_failure_of_the_run(bench: Bench, fault: str) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, run_seconds=900.0)
    bench.sandbox.faults.add(fault, method="GET", path="*/runs/*", after=1, times=8)
    assert bench.run(sync_id).run.status == "completed"


def test_an_outage_of_minutes_while_polling_is_no_failure_of_the_run(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, run_seconds=1500.0)

    def outage() -> None:
        bench.transport.refusing = True

    bench.before_request(3, outage, method="GET", path="*/runs/*")
    end = bench.clock.now() + timedelta(minutes=20)
    bench.step = lambda name: setattr(
        bench.transport, "refusing", bench.transport.refusing and bench.clock.now() < end
    )
    assert bench.run(sync_id).run.status == "completed"


@pytest.mark.parametrize(("fault", "kind"), [("unauthorized", Unauthorized), ("forbidden", Forbidden)])
def test_a_revoked_token_ends_the_watching_and_says_that_the_run_goes_on(
    bench: Bench, fault: str, kind: type[Exception]
) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, run_seconds=900.0)
    bench.sandbox.faults.add(fault, method="GET", path="*/runs/*", after=1, times=None)
    with pytest.raises(kind):
        bench.run(sync_id)
    assert "goes on in SignalSmith" in bench.told[-1]


def test_whoever_is_interrupted_says_that_the_remote_run_goes_on(bench: Bench) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(name: str) -> None:
        if name.endswith(":before") and "/runs/" in name and len(bench.requests("runs/")) >= 2:
            raise Interrupted

    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, run_seconds=900.0)
    bench.step = interrupt
    with pytest.raises(Interrupted):
        bench.run(sync_id)
    bench.step = lambda name: None
    assert "a retry of this request attaches to it" in bench.told[-1]
    assert bench.run(sync_id).run.id == bench.run_ids(sync_id)[0]


def test_an_unknown_status_counts_as_not_ended(bench: Bench) -> None:
    sync_id = bench.make_sync()

    def rename() -> None:
        bench.api.engine.runs[bench.run_ids(sync_id)[0]].status = "reticulating"

    bench.before_request(2, rename, method="GET", path="*/runs/*")
    with pytest.raises(RunStuck):
        bench.run(sync_id, policy=RunPolicy(deadline_seconds=600.0))
    assert sum("no known status" in line for line in bench.told) == 1


def test_answers_without_a_date_header_still_end_at_the_deadline(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, stuck="running")
    bench.sandbox.faults.add("no_date", times=None)
    with pytest.raises(RunStuck):
        bench.run(sync_id, policy=RunPolicy(deadline_seconds=900.0))


def test_the_rate_limit_is_kept_without_a_429_while_many_runs_are_followed(make_bench: MakeBench) -> None:
    """Forty followers share one client: 100 requests a minute and 20 a second are never passed."""
    bench = make_bench(limit_per_minute=100, limit_per_second=20)
    ids = [bench.make_sync(name=f"Sync {number}") for number in range(40)]
    for sync_id in ids:
        bench.control("plan_run", sync=sync_id, run_seconds=1.0)
    waited, eager = 0.0, RunPolicy(first_poll_seconds=0.05, longest_poll_seconds=0.05)
    for sync_id in ids:
        waited += bench.run(sync_id, policy=eager).usage.waited_seconds
    assert waited > 0
    assert {entry.status for entry in bench.sandbox.log} <= {200, 201}


def test_a_spent_budget_of_the_workspace_is_waited_for_as_the_server_says(make_bench: MakeBench) -> None:
    """Other users of the workspace use the limit too."""
    bench = make_bench(limit_per_minute=100, limit_per_second=None)
    sync_id = bench.make_sync()
    bench.before_request(2, lambda: bench.control("spend", requests=100))
    outcome = bench.run(sync_id)
    assert outcome.usage.throttled >= 1
    assert outcome.counts()["waited_seconds"] > 0
