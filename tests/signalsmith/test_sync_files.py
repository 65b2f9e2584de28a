"""Syncs as code: mistakes with their lines, a readable difference, only changes sent, nothing deleted unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rally_pipeline.signalsmith.catalog import read_rows
from rally_pipeline.signalsmith.records import Sync
from rally_pipeline.signalsmith.sync_apply import Applied, apply_action
from rally_pipeline.signalsmith.sync_files import SyncFile, read_file, read_folder
from rally_pipeline.signalsmith.sync_plan import FilePlan, make_plan
from rally_pipeline.signalsmith.sync_pull import pull
from tests.signalsmith.bench import Bench

MakeBench = Callable[..., Bench]
GOOD = """\
name: Contacts to newsletter
model_id: model-1
destination_id: destination-1
sync_mode: upsert
primary_key: id
schedule: "*/15 * * * *"
field_mapping:
  - {source_column: id, destination_field: external_id}
  - source_column: email
    destination_field: email
"""


def findings_of(folder: Path, text: str) -> list[str]:
    path = folder / "sync.yaml"
    path.write_text(text)
    return [f"{finding.line}: {finding.text}" for finding in read_file(path)[1]]


def syncs_of(bench: Bench) -> list[Sync]:
    return read_rows(bench.client.list_syncs())[0]


def folder_of(bench: Bench) -> Path:
    folder = bench.home / "syncs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(bench: Bench, file_name: str, /, **fields: Any) -> Path:
    """A file of a sync with usable references; `fields` replace or, as None, remove."""
    complete = {
        "name": "New sync",
        "model_id": next(iter(bench.api.models)),
        "destination_id": next(iter(bench.api.destinations)),
        "sync_mode": "upsert",
        "primary_key": "id",
        "field_mapping": [{"source_column": "id", "destination_field": "external_id"}],
        **fields,
    }
    path = folder_of(bench) / file_name
    path.write_text(yaml.safe_dump({key: value for key, value in complete.items() if value is not None}))
    return path


def plan_of(bench: Bench, *, prune: bool = False) -> FilePlan:
    files, findings = read_folder(folder_of(bench))
    assert [finding for finding in findings if finding.fatal] == []
    return make_plan(files, syncs_of(bench), prune=prune)


def apply(bench: Bench, *, prune: bool = False, force: bool = False) -> list[Applied]:
    return [apply_action(bench.client, action, force=force) for action in plan_of(bench, prune=prune).actions]


def bodies(bench: Bench, method: str) -> list[tuple[str, str]]:
    return [(found, path) for found, path in bench.requests() if found == method]


# Reading


def test_a_good_file_has_no_findings(tmp_path: Path) -> None:
    assert findings_of(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (
            "sync_mode: upsert",
            "sync_mode: append",
            "4: 'append' is no sync_mode: choose from upsert, insert, update,",
        ),
        ("primary_key: id", "primary_key: id, email", "5: the primary key is one column"),
        ("primary_key: id", "primary_key: [id, email]", "5: 'primary_key' must be text"),
        ('"*/15 * * * *"', '"0 0 31 4 *"', "6: '0 0 31 4 *' never fires"),
        ('"*/15 * * * *"', '"0 0 12 * * *"', "6: '0 0 12 * * *' has 6 fields instead of 5"),
        ('"*/15 * * * *"', "*/15 * * * *", "6: not valid YAML"),
        ('"*/15 * * * *"', "15", "6: 'schedule' must be a cron expression: put it in quotes"),
        ("name: Contacts to newsletter\n", "", "1: 'name' is required"),
        ("name: Contacts to newsletter", "name: 5", "1: 'name' must be text: put it in quotes"),
        ("primary_key: id", "primary_key: id\nowner: me", "6: unknown field 'owner'"),
        ("primary_key: id", "primary_key: id\nstatus: running", "6: 'running' is no status"),
        ("primary_key: id", "primary_key: id\nprimary_key: x", "6: 'primary_key' is given twice"),
        ("primary_key: id", "primary_key: id\nconfig: [1]", "6: 'config' must be a mapping"),
        (
            "destination_field: email",
            "destination_field: external_id",
            "9: destination_field 'external_id' is mapped twice",
        ),
        ("destination_field: email", "target: email", "9: an entry needs destination_field as text"),
        (
            "destination_field: email",
            "destination_field: email\n    cast: number",
            "9: unknown field 'cast' in an entry",
        ),
        ("name: Contacts", "name: [Contacts", "2: not valid YAML"),
        (GOOD, "- a list", "1: must hold one sync"),
        (GOOD, "", "1: must hold one sync"),
        (GOOD, "a: 1\n--- \nb: 2", "2: not valid YAML"),
        (GOOD, "!!python/object/apply:os.system [ls]", "1: must hold one sync"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, finding: str) -> None:
    found = findings_of(tmp_path, GOOD.replace(old, new))
    assert any(text.startswith(finding) for text in found), found


def test_what_is_only_odd_is_a_remark(tmp_path: Path) -> None:
    path = tmp_path / "sync.yaml"
    path.write_text(GOOD.replace("primary_key: id", "primary_key: customer_id").replace("*/15", "*/90"))
    file, findings = read_file(path)
    assert file is not None
    assert ["is not among the mapped columns" in str(findings[1]), "wider than" in str(findings[0])] == [
        True,
        True,
    ]


def test_two_files_of_one_sync_are_both_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yml").write_text(GOOD)
    files, findings = read_folder(tmp_path)
    assert [file.path.name for file in files] == ["a.yaml"]
    assert "a.yaml has the same name" in str(findings[-1])


def test_two_mirrors_into_one_destination_are_a_warning(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.replace("upsert", "mirror").replace("Contacts", name))
    _, findings = read_folder(tmp_path)
    assert "delete each other's rows" in str(findings[-1])


def test_the_options_file_is_not_a_sync(tmp_path: Path) -> None:
    (tmp_path / "signalsmith.yaml").write_text("defaults: {}")
    assert read_folder(tmp_path) == ([], [])


# Planning


def test_a_plan_is_readable(bench: Bench) -> None:
    remote = syncs_of(bench)[0]
    mapping = [entry.as_api() for entry in remote.field_mapping]
    mapping[1]["type_cast"] = "string"
    write(
        bench, "contacts.yaml", name=remote.name, model_id=remote.model_id, schedule="0 6 * * *",
        field_mapping=[*mapping[:3], {"source_column": "company", "destination_field": "organisation"}],
    )  # fmt: skip
    write(bench, "new.yaml", schedule="0 7 * * *")
    made = plan_of(bench)
    lines = [line for action in made.actions for line in action.lines()]
    assert lines[0] == "create New sync (new.yaml)"
    assert "update Contacts to newsletter (contacts.yaml)" in lines
    assert '  schedule: "*/15 * * * *" -> "0 6 * * *"' in lines
    assert "  field_mapping: - last_name > last_name" in lines
    assert "  field_mapping: + company > organisation" in lines
    assert "  field_mapping: ~ email > email -> email > email (string)" in lines
    assert made.unmanaged == ("Deals to finance",)


@pytest.mark.fault("V3")
def test_only_fields_that_a_file_states_are_compared(bench: Bench) -> None:
    remote = syncs_of(bench)[0]
    write(
        bench, "contacts.yaml", name=remote.name, model_id=remote.model_id,
        field_mapping=[entry.as_api() for entry in reversed(remote.field_mapping)],
    )  # fmt: skip
    assert plan_of(bench).actions == ()


def test_twins_must_be_told_apart_by_id(make_bench: MakeBench) -> None:
    bench = make_bench()
    ids = [bench.make_sync(name="Twins"), bench.make_sync(name="Twins")]
    write(bench, "twins.yaml", name="Twins")
    made = plan_of(bench)
    assert "say which one with 'id'" in str(made.findings[0])
    assert made.unmanaged == ()
    write(bench, "twins.yaml", name="Twins", id=ids[1], description="this one")
    assert plan_of(bench).actions[0].sync_id == ids[1]


def test_an_id_that_does_not_exist_is_an_error_and_creates_nothing(bench: Bench) -> None:
    write(bench, "a.yaml", id="no-such-id")
    made = plan_of(bench, prune=True)
    assert "SignalSmith has no sync no-such-id" in str(made.findings[0])
    assert made.actions == ()


def test_turning_a_sync_into_a_mirror_is_announced(bench: Bench) -> None:
    remote = syncs_of(bench)[0]
    write(
        bench, "a.yaml", name=remote.name, model_id=remote.model_id, sync_mode="mirror",
        field_mapping=[entry.as_api() for entry in remote.field_mapping],
    )  # fmt: skip
    assert "also foreign ones" in str(plan_of(bench).findings[0])


# Applying


def test_apply_creates_and_a_second_apply_does_nothing(bench: Bench) -> None:
    write(bench, "new.yaml", schedule="0 7 * * *", description="made by a file")
    (done,) = apply(bench)
    assert done.problem == ""
    assert bench.api.engine.syncs[done.sync_id].fields["description"] == "made by a file"
    assert apply(bench) == []


def test_only_changed_fields_are_sent_and_others_changes_survive(bench: Bench) -> None:
    remote = syncs_of(bench)[0]
    write(
        bench, "a.yaml", name=remote.name, model_id=remote.model_id, schedule="0 6 * * *",
        field_mapping=[entry.as_api() for entry in remote.field_mapping],
    )  # fmt: skip
    made = plan_of(bench)
    bench.control("edit_sync", sync=remote.id, fields={"description": "edited in the UI meanwhile"})
    assert apply_action(bench.client, made.actions[0]).problem == ""
    fields = bench.api.engine.syncs[remote.id].fields
    assert (fields["schedule"], fields["description"]) == ("0 6 * * *", "edited in the UI meanwhile")


def test_a_field_that_somebody_changed_meanwhile_is_not_overwritten(bench: Bench) -> None:
    remote = syncs_of(bench)[0]
    write(
        bench, "a.yaml", name=remote.name, model_id=remote.model_id, schedule="0 6 * * *",
        field_mapping=[entry.as_api() for entry in remote.field_mapping],
    )  # fmt: skip
    made = plan_of(bench)
    bench.control("edit_sync", sync=remote.id, fields={"schedule": "0 8 * * *"})
    assert "changed in SignalSmith meanwhile" in apply_action(bench.client, made.actions[0]).problem
    assert bench.api.engine.syncs[remote.id].fields["schedule"] == "0 8 * * *"


def test_status_pauses_and_resumes(bench: Bench) -> None:
    sync_id = bench.make_sync(name="Mine", schedule="0 5 * * *")
    for status, kind in (("paused", "pause"), ("active", "resume")):
        write(bench, "mine.yaml", name="Mine", status=status)
        (action,) = plan_of(bench).actions
        assert action.kind == kind
        assert apply_action(bench.client, action).problem == ""
        assert bench.api.engine.syncs[sync_id].fields["status"] == status


def test_a_new_sync_can_begin_paused(bench: Bench) -> None:
    write(bench, "new.yaml", schedule="0 7 * * *", status="paused")
    (done,) = apply(bench)
    assert bench.api.engine.syncs[done.sync_id].fields["status"] == "paused"


def test_a_schedule_can_be_cleared(bench: Bench) -> None:
    sync_id = bench.make_sync(name="Mine", schedule="0 5 * * *")
    write(bench, "mine.yaml", name="Mine", schedule="")
    (done,) = apply(bench)
    assert done.problem == ""
    assert bench.api.engine.syncs[sync_id].fields["schedule"] == ""


def test_nothing_is_deleted_without_prune(bench: Bench) -> None:
    write(bench, "new.yaml")
    apply(bench)
    assert len(bench.api.engine.syncs) == 3
    apply(bench, prune=True)
    assert [sync.fields["name"] for sync in bench.api.engine.syncs.values()] == ["New sync"]


def test_a_sync_with_a_run_under_way_is_not_deleted_without_force(bench: Bench) -> None:
    sync_id = bench.make_sync(name="Busy")
    bench.control("plan_run", sync=sync_id, stuck="running")
    bench.control("start_run", sync=sync_id)
    write(bench, "new.yaml")
    problems = [done.problem for done in apply(bench, prune=True) if done.action.name == "Busy"]
    assert "is under way" in problems[0]
    assert sync_id in bench.api.engine.syncs
    apply(bench, prune=True, force=True)
    assert sync_id not in bench.api.engine.syncs


@pytest.mark.fault("R2", "T13")
@pytest.mark.parametrize("fault", ["lost_answer", "applied_500", "cut_body"])
def test_a_lost_answer_to_a_create_makes_one_sync(bench: Bench, fault: str) -> None:
    write(bench, "new.yaml")
    bench.sandbox.faults.add(fault, method="POST", path="*/syncs")
    (done,) = apply(bench)
    assert done.problem == ""
    assert [sync.fields["name"] for sync in bench.api.engine.syncs.values()].count("New sync") == 1
    assert len(bodies(bench, "POST")) == 1


def test_a_create_that_did_not_happen_is_not_sent_again_by_itself(bench: Bench) -> None:
    write(bench, "new.yaml")
    bench.sandbox.faults.add("status_500", method="POST", path="*/syncs")
    (done,) = apply(bench)
    assert "run plan again" in done.problem
    assert len(bodies(bench, "POST")) == 1
    assert apply(bench)[0].problem == ""


def test_answers_that_are_no_sync_are_read_back(make_bench: MakeBench) -> None:
    bench = make_bench(switches={"write_answer": "status"})
    write(bench, "new.yaml", status="paused", schedule="0 7 * * *")
    (done,) = apply(bench)
    assert done.problem == ""
    assert bench.api.engine.syncs[done.sync_id].fields["status"] == "paused"


def test_what_the_server_refuses_is_reported_and_the_rest_is_applied(bench: Bench) -> None:
    write(bench, "a.yaml", name="A", model_id="no-such-model")
    write(bench, "b.yaml", name="B")
    problems = {done.action.name: done.problem for done in apply(bench)}
    assert "model not found" in problems["A"]
    assert problems["B"] == ""


# Pulling


def test_pull_writes_what_exists_and_the_plan_is_then_empty(make_bench: MakeBench) -> None:
    bench = make_bench(timezone="UTC")
    bench.make_sync(
        name="Überschüsse: 100 %", schedule="*/5 * * * *", config={"a": [1, {"b": None}]}, description="x\ny"
    )
    pulled = pull(folder_of(bench), syncs_of(bench), [])
    assert {found.state for found in pulled} == {"written"}
    assert {path.name for path in folder_of(bench).iterdir()} == {
        "contacts_to_newsletter.yaml", "deals_to_finance.yaml", "uberschusse_100.yaml",
    }  # fmt: skip
    made = plan_of(bench)
    assert made.actions == ()
    assert len(made.unchanged) == 3


def test_pull_leaves_a_file_that_differs_alone_unless_told_otherwise(bench: Bench) -> None:
    pull(folder_of(bench), syncs_of(bench), [])
    bench.control("edit_sync", sync=bench.sync_id(0), fields={"description": "new"})

    def again(*, overwrite: bool) -> dict[str, str]:
        files: list[SyncFile] = read_folder(folder_of(bench))[0]
        found = pull(folder_of(bench), syncs_of(bench), files, overwrite=overwrite)
        return {pulled.path.name: pulled.state for pulled in found}

    assert again(overwrite=False) == {
        "contacts_to_newsletter.yaml": "kept",
        "deals_to_finance.yaml": "unchanged",
    }
    assert again(overwrite=True)["contacts_to_newsletter.yaml"] == "replaced"
    assert plan_of(bench).actions == ()


def test_a_hostile_workspace_is_pulled_into_safe_file_names(make_bench: MakeBench) -> None:
    bench = make_bench(hostile=True)
    pulled = pull(folder_of(bench), syncs_of(bench), [])
    assert len({found.path for found in pulled}) == len(pulled) == 44
    assert all(found.path.parent == folder_of(bench) for found in pulled)
    for found in pulled:
        assert yaml.safe_load(found.path.read_text())["id"]
