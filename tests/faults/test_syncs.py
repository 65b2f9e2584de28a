"""Syncs kept as files: whatever answer is lost and whoever interferes, SignalSmith ends as the files say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.signalsmith.bench import Bench
from tests.signalsmith.test_sync_files import apply, folder_of, plan_of, write

MakeBench = Callable[..., Bench]
NEVER_CAME = ["lost_answer", "applied_500", "cut_body"]


def field(bench: Bench, sync_id: str, name: str) -> object:
    return bench.api.engine.syncs[sync_id].fields[name]


@pytest.mark.fault("R2", "H10")
@pytest.mark.parametrize("fault", NEVER_CAME)
def test_a_lost_answer_to_an_update_is_repeated_and_changes_it_once(bench: Bench, fault: str) -> None:
    sync_id = bench.make_sync(name="Mine", schedule="0 5 * * *")
    write(bench, "mine.yaml", name="Mine", schedule="0 6 * * *")
    bench.sandbox.faults.add(fault, method="PUT")
    assert [done.problem for done in apply(bench)] == [""]
    assert field(bench, sync_id, "schedule") == "0 6 * * *"
    assert plan_of(bench).actions == ()


@pytest.mark.fault("R2")
@pytest.mark.parametrize("fault", NEVER_CAME)
def test_a_lost_answer_to_a_delete_is_repeated_and_its_404_is_success(bench: Bench, fault: str) -> None:
    write(bench, "new.yaml")
    apply(bench)
    bench.sandbox.faults.add(fault, method="DELETE")
    assert [done.problem for done in apply(bench, prune=True)] == ["", ""]
    assert [sync.fields["name"] for sync in bench.api.engine.syncs.values()] == ["New sync"]
    assert plan_of(bench, prune=True).actions == ()


@pytest.mark.fault("R3")
def test_a_change_whose_answers_were_all_lost_is_taken_back_when_the_file_is(bench: Bench) -> None:
    sync_id = bench.make_sync(name="Mine", schedule="0 1 * * *")
    write(bench, "mine.yaml", name="Mine", schedule="0 2 * * *")
    bench.sandbox.faults.add("lost_answer", method="PUT", times=None)
    assert "reset" in apply(bench)[0].problem
    bench.sandbox.faults.clear()
    assert field(bench, sync_id, "schedule") == "0 2 * * *"
    write(bench, "mine.yaml", name="Mine", schedule="0 1 * * *")
    bench.clock.advance(600)
    assert [done.problem for done in apply(bench)] == [""]
    assert field(bench, sync_id, "schedule") == "0 1 * * *"


@pytest.mark.fault("R3")
def test_a_sync_whose_delete_was_never_answered_is_made_anew_when_its_file_returns(bench: Bench) -> None:
    path = write(bench, "mine.yaml", name="Mine")
    kept = write(bench, "kept.yaml", name="Kept")
    apply(bench, prune=True)
    text = path.read_text()
    path.unlink()
    bench.sandbox.faults.add("lost_answer", method="DELETE", times=None)
    assert "reset" in apply(bench, prune=True)[0].problem
    bench.sandbox.faults.clear()
    bench.clock.advance(600)
    path.write_text(text)
    assert [done.problem for done in apply(bench, prune=True)] == [""]
    assert sorted(str(sync.fields["name"]) for sync in bench.api.engine.syncs.values()) == ["Kept", "Mine"]
    assert kept.parent == folder_of(bench)


@pytest.mark.fault("R6")
def test_a_sync_that_somebody_deleted_is_made_again_once(bench: Bench) -> None:
    write(bench, "mine.yaml", name="Mine", schedule="0 6 * * *")
    (made,) = apply(bench)
    bench.control("remove_sync", sync=made.sync_id)
    (again,) = apply(bench)
    assert (again.action.kind, again.problem) == ("create", "")
    assert again.sync_id != made.sync_id
    assert apply(bench) == []


@pytest.mark.fault("R6")
def test_a_sync_that_is_deleted_between_plan_and_apply_is_reported_and_made_by_the_next_plan(
    bench: Bench,
) -> None:
    sync_id = bench.make_sync(name="Mine", schedule="0 5 * * *")
    write(bench, "mine.yaml", name="Mine", schedule="0 6 * * *")
    bench.before_request(1, lambda: bench.control("remove_sync", sync=sync_id), path=f"*/syncs/{sync_id}")
    (done,) = apply(bench)
    assert "does not exist any more: run plan again" in done.problem
    assert [done.problem for done in apply(bench)] == [""]
    assert apply(bench) == []


OTHERWISE = """\
config: {{nested: {{a: null, b: [1, 2]}}, share: 5.0e-1, "limit": 10}}
"description": "\\u00e4: 1"
destination_id: {destination}
field_mapping: [{{destination_field: email, source_column: email}},
  {{destination_field: external_id, source_column: id}}]
model_id: {model}
name: 'Mine'
primary_key: "id"
schedule: '0 6 * * *'
sync_mode: upsert
"""


@pytest.mark.fault("R10")
def test_other_spellings_of_the_same_sync_send_nothing(bench: Bench) -> None:
    path = write(
        bench, "mine.yaml", name="Mine", schedule="0 6 * * *", description="ä: 1",
        config={"limit": 10, "share": 0.5, "nested": {"b": [1, 2], "a": None}},
        field_mapping=[
            {"source_column": "id", "destination_field": "external_id"},
            {"source_column": "email", "destination_field": "email"},
        ],
    )  # fmt: skip
    apply(bench)
    model, destination = next(iter(bench.api.models)), next(iter(bench.api.destinations))
    path.write_text(OTHERWISE.format(model=model, destination=destination))
    sent = len(bench.requests())
    assert apply(bench) == []
    assert {method for method, _ in bench.requests()[sent:]} == {"GET"}
