"""A request leaves exactly one remote run, whatever is lost, refused or killed on the way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from rally_pipeline.http.errors import NoAnswer, Rejected, ServerFailed, Unauthorized
from rally_pipeline.signalsmith.errors import NothingToAttach, OwnershipRefused, SyncGone, TriggerUnknown
from rally_pipeline.signalsmith.options import Ownership
from rally_pipeline.signalsmith.run_request import RunPolicy
from tests.signalsmith.bench import Bench

MakeBench = Callable[..., Bench]


class Killed(BaseException):
    """The process died here."""


class KillAt:
    """A `Step` that dies at the n-th call."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen: list[str] = []

    def __call__(self, name: str) -> None:
        self.seen.append(name)
        if len(self.seen) == self.number:
            raise Killed(name)


def steps_of_one_run(make_bench: MakeBench) -> list[str]:
    """Names of all crash points of a manual run, the ones of opening included."""
    bench = make_bench(switches={"scheduler": False})
    names: list[str] = []
    bench.step = names.append
    bench.run(bench.make_sync())
    return names


def test_a_manual_request_triggers_once_and_reports_the_counts(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("plan_run", sync=sync_id, rows=100, failed_rows=4)
    outcome = bench.run(sync_id)
    assert outcome.origin == "triggered"
    assert (outcome.run.rows_synced, outcome.run.rows_failed) == (96, 4)
    assert len(bench.started(sync_id)) == 1
    assert [method for method, path in bench.requests("trigger")] == ["POST"]


def test_the_same_request_again_attaches_to_its_run(bench: Bench) -> None:
    sync_id = bench.make_sync()
    first = bench.run(sync_id, "run:1")
    again = bench.run(sync_id, "run:1")
    assert again.run.id == first.run.id
    assert len(bench.started(sync_id)) == 1


def test_another_request_gets_another_run(bench: Bench) -> None:
    sync_id = bench.make_sync()
    assert bench.run(sync_id, "run:1").run.id != bench.run(sync_id, "run:2").run.id


@pytest.mark.fault("R12", "T13")
@pytest.mark.parametrize("fault", ["lost_answer", "cut_body", "applied_500"])
def test_after_a_lost_answer_the_run_is_adopted(bench: Bench, fault: str) -> None:
    sync_id = bench.make_sync()
    bench.sandbox.faults.add(fault, method="POST", path="*/trigger")
    outcome = bench.run(sync_id)
    assert outcome.origin == "adopted"
    assert bench.run_ids(sync_id) == [outcome.run.id]


@pytest.mark.fault("R12")
@pytest.mark.parametrize(
    "fault", ["status_500", "status_503", "reset_before_headers", "html_200", "empty_200"]
)
def test_a_trigger_that_was_not_applied_is_sent_once_more_after_a_look(bench: Bench, fault: str) -> None:
    sync_id = bench.make_sync()
    bench.sandbox.faults.add(fault, method="POST", path="*/trigger")
    outcome = bench.run(sync_id)
    assert outcome.origin == "triggered"
    assert len(bench.started(sync_id)) == 1
    assert len(bench.requests("trigger")) == 2


def test_a_run_that_appears_late_in_the_list_is_still_adopted(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.switch(list_lag_seconds=20.0)
    bench.sandbox.faults.add("lost_answer", method="POST", path="*/trigger")
    assert bench.run(sync_id).origin == "adopted"
    assert len(bench.started(sync_id)) == 1


def test_two_lost_triggers_without_a_trace_are_reported_and_never_followed_by_a_third(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.sandbox.faults.add("status_500", method="POST", path="*/trigger", times=None)
    for _ in range(2):
        with pytest.raises(TriggerUnknown, match="look in SignalSmith"):
            bench.run(sync_id)
    assert len(bench.requests("trigger")) == 2


def test_a_run_of_somebody_else_beside_the_lost_one_is_told_apart_by_who_started_it(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.sandbox.faults.add("lost_answer", method="POST", path="*/trigger")
    bench.before_request(
        1,
        lambda: bench.control("start_run", sync=sync_id, triggered_by=None),
        method="POST",
        path="*/trigger",
    )
    outcome = bench.run(sync_id)
    assert outcome.run.triggered_by == "account-1"


def test_two_candidates_for_a_lost_trigger_are_reported_not_guessed(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.sandbox.faults.add("lost_answer", method="POST", path="*/trigger")
    bench.before_request(1, lambda: bench.control("start_run", sync=sync_id), method="POST", path="*/trigger")
    with pytest.raises(TriggerUnknown, match="2 runs began since"):
        bench.run(sync_id)
    assert len(bench.requests("trigger")) == 1


def test_a_refused_connection_is_tried_again_because_nothing_was_applied(bench: Bench) -> None:
    sync_id = bench.make_sync()
    told: list[float] = []

    def recover(name: str) -> None:
        if name == "signalsmith.trigger:before":
            told.append(bench.clock.monotonic())
            bench.transport.refusing = len(told) < 3

    bench.step = recover
    assert bench.run(sync_id).origin == "triggered"
    assert len(told) == 3
    assert len(bench.started(sync_id)) == 1


def test_a_429_on_the_trigger_is_waited_out_and_is_no_lost_answer(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.sandbox.faults.add("throttle", method="POST", path="*/trigger", retry_after="17")
    before = bench.clock.now()
    assert bench.run(sync_id).origin == "triggered"
    started = bench.started(sync_id)
    assert len(started) == 1
    assert started[0] - before >= timedelta(seconds=17)


@pytest.mark.fault("R12", "H24")
def test_a_409_attaches_to_the_run_that_is_under_way(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.switch(busy="conflict")
    bench.before_request(1, lambda: bench.control("start_run", sync=sync_id), method="POST", path="*/trigger")
    outcome = bench.run(sync_id)
    assert outcome.origin == "attached"
    assert len(bench.started(sync_id)) == 1


def test_a_409_without_any_run_is_an_error_and_can_be_asked_again(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.sandbox.faults.add("status_409", method="POST", path="*/trigger")
    with pytest.raises(Exception, match="409"):
        bench.run(sync_id)
    assert bench.run(sync_id).origin == "triggered"
    assert len(bench.started(sync_id)) == 1


def test_a_draft_sync_is_refused_with_the_remote_words(bench: Bench) -> None:
    sync_id = bench.make_sync(status="draft")
    with pytest.raises(Rejected, match="cannot trigger a sync that is draft"):
        bench.run(sync_id)


def test_a_run_under_way_is_attached_to_instead_of_stacking_a_second_one(bench: Bench) -> None:
    sync_id = bench.make_sync()
    run_id = bench.control("start_run", sync=sync_id)
    outcome = bench.run(sync_id)
    assert (outcome.origin, outcome.run.id) == ("attached", run_id)
    assert bench.run_ids(sync_id) == [run_id]


def test_a_waiting_run_is_preferred_because_it_reads_newer_data(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("start_run", sync=sync_id)
    bench.clock.advance(5)
    waiting = bench.control("start_run", sync=sync_id)
    assert bench.run(sync_id).run.id == waiting


def test_a_run_that_began_before_the_data_changed_is_waited_for_and_then_followed_by_a_fresh_one(
    bench: Bench,
) -> None:
    sync_id = bench.make_sync()
    old = bench.control("start_run", sync=sync_id)
    bench.clock.advance(5)
    outcome = bench.run(sync_id, not_before=bench.clock.now())
    assert outcome.waited_for == old
    assert outcome.run.id != old
    assert len(bench.started(sync_id)) == 2


def test_of_two_processes_with_the_same_request_one_triggers(bench: Bench) -> None:
    sync_id = bench.make_sync()
    others: list[str] = []

    def second_process() -> None:
        with pytest.raises(Exception, match="being worked on"):
            bench.runner()._warehouse.lease(f"signalsmith.{sync_id}").__enter__()
        others.append("waited")

    bench.before_request(1, second_process, method="POST", path="*/trigger")
    bench.run(sync_id)
    assert others == ["waited"]
    assert bench.run(sync_id).run.id == bench.run_ids(sync_id)[0]
    assert len(bench.started(sync_id)) == 1


@pytest.mark.fault("R1")
def test_a_crash_at_every_step_leaves_exactly_one_run(make_bench: MakeBench) -> None:
    """Each call and each commit of a run is a crash point; the request is then repeated, as a retry does."""
    names = steps_of_one_run(make_bench)
    assert len(names) > 25
    for number in range(1, len(names) + 1):
        bench = make_bench(switches={"scheduler": False})
        sync_id = bench.make_sync()
        bench.step = KillAt(number)
        with pytest.raises(Killed):
            bench.run(sync_id)
        bench.recover()
        outcome = bench.run(sync_id)
        assert bench.run_ids(sync_id) == [outcome.run.id], f"killed at {names[number - 1]}"
        bench.close()


@pytest.mark.fault("R12", "T13")
def test_a_lost_answer_at_every_request_leaves_exactly_one_run(make_bench: MakeBench) -> None:
    probe = make_bench(switches={"scheduler": False})
    probe.run(probe.make_sync())
    total = len(probe.requests())
    assert total >= 6
    for number in range(total):
        bench = make_bench(switches={"scheduler": False})
        sync_id = bench.make_sync()
        bench.sandbox.faults.add("lost_answer", after=number)
        outcome = bench.run(sync_id)
        assert bench.run_ids(sync_id) == [outcome.run.id], f"answer {number + 1} lost"
        bench.close()


def test_a_lost_answer_and_a_crash_right_after_it_leave_one_run(make_bench: MakeBench) -> None:
    probe = make_bench(switches={"scheduler": False})
    sync_id = probe.make_sync()
    seen: list[str] = []
    probe.step = seen.append
    probe.sandbox.faults.add("lost_answer", method="POST", path="*/trigger")
    probe.run(sync_id)
    sent = next(number for number, name in enumerate(seen) if name.startswith("signalsmith:POST"))
    for number in range(sent, len(seen)):
        bench = make_bench(switches={"scheduler": False})
        sync_id = bench.make_sync()
        bench.sandbox.faults.add("lost_answer", method="POST", path="*/trigger")
        bench.step = KillAt(number + 1)
        with pytest.raises(Killed):
            bench.run(sync_id)
        bench.recover()
        outcome = bench.run(sync_id)
        assert bench.run_ids(sync_id) == [outcome.run.id], f"killed at {seen[number]}"
        bench.close()


def test_the_local_clock_may_be_wrong_by_hours(make_bench: MakeBench) -> None:
    for skew in (-7200.0, 7200.0):
        bench = make_bench(skew_seconds=skew)
        sync_id = bench.make_sync()
        bench.control("start_run", sync=sync_id)
        bench.clock.advance(600)
        bench.sandbox.faults.add("lost_answer", method="POST", path="*/trigger")
        assert bench.run(sync_id).origin == "adopted"
        assert len(bench.started(sync_id)) == 2


def test_observe_never_triggers_but_follows_a_run_that_is_there(bench: Bench) -> None:
    sync_id = bench.make_sync()
    policy = RunPolicy(ownership=Ownership.OBSERVE)
    with pytest.raises(NothingToAttach, match="only observed"):
        bench.run(sync_id, policy=policy)
    assert bench.requests("trigger") == []
    run_id = bench.control("start_run", sync=sync_id)
    assert bench.run(sync_id, policy=policy).run.id == run_id


def test_drive_refuses_while_the_remote_schedule_is_active(bench: Bench) -> None:
    sync_id = bench.make_sync(schedule="0 * * * *")
    policy = RunPolicy(ownership=Ownership.DRIVE)
    with pytest.raises(OwnershipRefused, match="pause the sync there"):
        bench.run(sync_id, policy=policy)
    bench.control("edit_sync", sync=sync_id, fields={"status": "paused"})
    assert bench.run(sync_id, "run:2", policy).origin == "triggered"


def test_a_sync_that_is_gone_is_named_with_what_to_do(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.control("remove_sync", sync=sync_id)
    with pytest.raises(SyncGone, match="materialize signalsmith/catalog"):
        bench.run(sync_id)


def test_a_wrong_token_stops_at_once(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.sandbox.faults.add("unauthorized", times=None)
    with pytest.raises(Unauthorized):
        bench.run(sync_id)
    assert len(bench.requests()) == 1


def test_an_unreachable_remote_triggers_nothing(bench: Bench) -> None:
    sync_id = bench.make_sync()
    bench.transport.refusing = True
    with pytest.raises((NoAnswer, ServerFailed)):
        bench.run(sync_id)
    bench.transport.refusing = False
    assert bench.started(sync_id) == []


def test_ids_are_opaque_and_quoted(bench: Bench) -> None:
    sync_id = bench.make_sync(id="../../x?y=1#z é")
    assert bench.run(sync_id).origin == "triggered"
    assert len(bench.run_ids(sync_id)[0].split("-")[0]) == 7  # no valid UUID, as in the documentation


@pytest.mark.fault("R11")
def test_a_tick_that_came_twice_gets_one_run(bench: Bench) -> None:
    sync_id = bench.make_sync()
    tick = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    bench.at(tick)
    first = bench.run(sync_id, f"tick:{tick.isoformat()}", tick=tick)
    second = bench.run(sync_id, f"tick:{tick.isoformat()}", tick=tick)
    assert first.run.id == second.run.id
    assert len(bench.started(sync_id)) == 1


@pytest.mark.fault("R12")
@pytest.mark.parametrize("dialect", ["postgresql"])
def test_it_holds_on_postgresql_too(make_bench: MakeBench, postgres_url: str, dialect: str) -> None:
    bench = make_bench(warehouse_url=postgres_url)
    sync_id = bench.make_sync()
    bench.sandbox.faults.add("lost_answer", method="POST", path="*/trigger")
    assert bench.run(sync_id).origin == "adopted"
    assert bench.run(sync_id).run.id == bench.run_ids(sync_id)[0]
    assert len(bench.started(sync_id)) == 1
