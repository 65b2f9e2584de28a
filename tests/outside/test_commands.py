"""Every other command once, as a process: what it does, its exit code, and that a mistake is one clear line."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.outside.account import contact, filled, served, stamp
from tests.outside.comparing import rally_differences
from tests.outside.conftest import MakePlace, Place, tables_of
from tests.outside.processes import ROOT, Home, cleared

DEMO_SECONDS = 300
"""It says "under a minute"; a loaded machine may take longer."""
COMMAND = re.compile(r"^  ([a-z][a-z-]+) ", re.MULTILINE)


def test_the_demo_agrees_with_itself(tmp_path: Path) -> None:
    with cleared(Home(tmp_path, {})) as home:
        ended = home.run("demo", "--records", "800", "--seed", "3", seconds=DEMO_SECONDS)
        assert "agree row by row" in ended.out
        assert home.survivors() == []


def test_every_command_explains_itself_and_none_is_missing_from_the_readme(tmp_path: Path) -> None:
    home = Home(tmp_path, {})
    shown = home.run("--help").out
    commands = COMMAND.findall(shown.partition("Commands:")[2])
    assert {"sync", "verify", "status", "dev", "demo", "doctor"} <= set(commands), shown
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in commands:
        assert "Usage:" in home.run(command, "--help").out
    assert [command for command in commands if not re.search(rf"\b{command}\b", readme)] == []


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        (("sync",), {}, "RALLY_API_URL"),
        (("sync", "sell"), {}, "SELL_ACCESS_TOKEN"),
        (("sync", "rally"), {"RALLY_API_URL": "ftp://x", "RALLY_API_KEY": "rk_k"}, "RALLY_API_URL"),
        (("import", "contacts", "nowhere.csv"), "source", "nowhere.csv"),
        (("sync", "rally"), "unreachable", "RALLY_API_URL"),
        (("sync", "nonsense"), {}, "nonsense"),
    ],
    ids=["nothing set", "Sell is not set", "no URL", "no file", "nobody listens", "no such system"],
)
def test_a_mistake_is_one_clear_line(
    arguments: tuple[str, ...], variables: dict[str, str] | str, named: str, tmp_path: Path
) -> None:
    settings = variables if isinstance(variables, dict) else {}
    if isinstance(variables, str):
        settings = {"RALLY_API_URL": "http://127.0.0.1:9/api/v1", "RALLY_API_KEY": "rk_test_key_of_nobody"}
    ended = Home(tmp_path, settings).run(*arguments, code=None, seconds=400)
    assert ended.code == 2, str(ended)
    assert named in ended.last_line, str(ended)


@pytest.mark.night("postgresql")
def test_a_refused_key_is_one_clear_line_that_does_not_show_it(place: Place) -> None:
    wrong = "rk_live_that_is_not_the_key_0123456789"
    ended = place.home.run("sync", "rally", code=2, RALLY_API_KEY=wrong)
    assert "RALLY_API_KEY" in ended.last_line, str(ended)
    assert wrong not in ended.said


def test_status_tells_rows_and_what_is_pending(place: Place) -> None:
    place.home.run("sync", "rally", "sell")
    place.home.run("status")
    found = json.loads(place.home.run("status", "--json").out)
    text = json.dumps(found)
    for entity in ("contacts", "companies", "deals", "activities"):
        assert f"rally_{entity}" in text
    assert "open_marks" in text
    before = place.tables.count("rally_contacts")
    assert str(before) in place.home.run("status").out.replace(",", "")


def test_a_file_is_imported_once_and_comes_back_by_the_feed(place: Place, tmp_path: Path) -> None:
    place.home.run("sync", "rally")
    known = place.source.truth("rally", "contacts")[0]["email"]
    rows = [["first_name", "last_name", "email"], ["Grace", "Moss", "grace@new.example"]]
    rows += [["Known", "Already", known], ["", "", "nameless@new.example"]]
    path = tmp_path / "people.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    key = place.source.do("rally", "key", scope="write")
    dry = place.home.run("import", "contacts", str(path), "--dry-run", "--json", code=None, RALLY_API_KEY=key)
    assert dry.code in (0, 1)
    assert not [one for one in place.source.truth("rally", "contacts") if one["email"] == "grace@new.example"]
    done = place.home.run("import", "contacts", str(path), "--json", code=1, RALLY_API_KEY=key)
    counts = json.loads(done.out)
    assert (counts["rows"], counts["imported"], counts["duplicate"], counts["refused"]) == (3, 1, 1, 1)
    place.home.run("import", "contacts", str(path), code=None, RALLY_API_KEY=key)
    emails = [one["email"] for one in place.source.truth("rally", "contacts")]
    assert emails.count("grace@new.example") == 1
    place.settle()
    place.home.run("sync", "rally")
    place.require_equal("rally")


def test_an_export_holds_every_record(place: Place) -> None:
    place.home.run("sync", "rally")
    count = len(place.source.truth("rally", "companies"))
    for file_format in ("csv", "xlsx"):
        ended = place.home.run("export", "companies", "--format", file_format, "--json")
        assert json.loads(ended.out)["rows"] == count
        (path,) = (place.home.path / "exports").glob(f"**/*.{file_format}")
        assert path.stat().st_size > 1000
        if file_format == "csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                assert len(list(csv.reader(file))) == count + 1


@pytest.mark.night("postgresql")
def test_a_template_names_the_columns(place: Place) -> None:
    ended = place.home.run("template", "contacts")
    path = place.home.folder / ended.out.strip()
    assert path.read_text(encoding="utf-8-sig").startswith("first_name,last_name,email")


def test_a_record_that_cannot_be_stored_waits_in_quarantine_until_it_can(place: Place) -> None:
    place.home.run("sync", "rally")
    key = place.source.truth("rally", "contacts")[0]["id"]
    place.source.do("rally", "distort", entity="contacts", id=key, raw={"leadScore": "NaN"})
    place.source.do("rally", "update", entity="contacts", id=key, fields={"lastName": "Odd"})
    place.settle()
    place.home.run("sync", "rally", code=None)
    waiting = json.loads(place.home.run("quarantine", "--json").out)
    assert [one["key"] for one in waiting] == [key]
    place.source.do("rally", "restore", entity="contacts", id=key)
    place.home.run("replay")
    assert json.loads(place.home.run("quarantine", "--json").out) == []
    place.require_equal("rally")


def test_a_sync_of_signalsmith_runs_every_active_sync_once(place: Place) -> None:
    place.source.do("signalsmith", "switch", run_seconds=1.0, queue_seconds=0.0, scheduler=False)
    ended = place.home.run("sync", "signalsmith")
    assert "2 of 2 active syncs ran" in ended.said, str(ended)
    started = place.source.do("signalsmith", "runs_started")
    assert len({run["sync"] for run in started}) == len(started) == 2
    stored = {row["id"] for row in place.tables.rows("signalsmith_runs")}
    assert {run["run"] for run in started} <= stored
    place.home.run("signalsmith", "refresh")


def test_the_doctor_finds_nothing_wrong_where_all_is_well(place: Place) -> None:
    ended = place.home.run("doctor")
    for word in ("RALLY", "SELL", "SIGNALSMITH", "WAREHOUSE"):
        assert word in ended.out.upper(), str(ended)


@pytest.mark.night("postgresql")
def test_the_doctor_says_what_to_do_about_a_wrong_key(place: Place) -> None:
    wrong = "rk_live_that_is_not_the_key_0123456789"
    ended = place.home.run("doctor", code=1, RALLY_API_KEY=wrong)
    assert "RALLY_API_KEY" in ended.out
    assert wrong not in ended.said


def test_dev_prints_a_line_that_a_shell_understands(tmp_path: Path) -> None:
    """`set -a; . …` puts into the environment what `dev` runs with, schedules with blanks and stars included."""
    from tests.outside.deployment import running_dev

    with running_dev(tmp_path, "--sandbox", "--records", "50") as dev:
        (line,) = re.findall(r"For other commands beside it:\s+(.*)", dev.running.said())
        shown = dev.home.start("bash", "-c", f'{line}; printf %s "$SELL_DRAIN_CRON"').wait(20)
        assert (shown.out, shown.err, shown.code) == ("* * * * *", "", 0)


def test_a_body_that_is_cut_in_the_middle_of_a_run_is_asked_for_again(tmp_path: Path) -> None:
    account = filled(5, records=250)
    seen: list[str] = []

    def hook(handler, path: str, query: dict[str, str]):
        if path.endswith("/contacts") and query.get("offset") not in (None, "0") and len(seen) < 3:
            seen.append(path)
            body = (b'[{"id": "cut', b"", b"<html><title>Gateway</title></html>")[len(seen) - 1]
            return 200, {"Content-Type": "text/html" if b"html" in body else "application/json"}, body
        return None

    account.hook = hook
    with served(account) as variables, cleared(Home(tmp_path, variables)) as home:
        home.run("sync", "rally", RALLY_STALENESS_SECONDS="0", RALLY_FEED_OVERLAP_SECONDS="5")
        assert len(seen) == 3
        truth = {
            name: [json.loads(raw) for raw in raws.values()]
            for name, raws in account.content["rally"].items()
        }
        assert rally_differences(truth, tables_of(home)) == []


def test_a_group_of_entries_larger_than_a_page_is_covered_by_one_extract(tmp_path: Path) -> None:
    """An import or a bulk change stamps hundreds of records with one second; the feed shows a hundred of them."""
    account = filled(6, records=60)

    def hook(_handler, path: str, query: dict[str, str]) -> None:
        if path.endswith("/sync/changes"):
            query["limit"] = str(min(int(query.get("limit", 100)), 100))
        return

    account.hook = hook
    pace = {"RALLY_STALENESS_SECONDS": "0", "RALLY_FEED_OVERLAP_SECONDS": "5"}
    with served(account) as variables, cleared(Home(tmp_path, {**variables, **pace})) as home:
        home.run("sync", "rally")
        moment = stamp()
        for number in range(250):
            account.put("contacts", contact(f"00000000-0000-4000-8000-{number:012}", updatedAt=moment))
            account.content["feed"][-1]["changedAt"] = moment
        home.run("sync", "rally", seconds=300)
        truth = {
            name: [json.loads(raw) for raw in raws.values()]
            for name, raws in account.content["rally"].items()
        }
        assert rally_differences(truth, tables_of(home)) == []


@pytest.mark.night("sqlite")
def test_a_read_only_home_asks_but_never_writes(make_place: MakePlace) -> None:
    place = make_place("--records", "60")
    ended = place.home.run("sync", "sell", code=None, RALLY_PIPELINE_READ_ONLY="true")
    assert ended.code in (0, 2), str(ended)
    assert place.source.do("sell", "report")["sessions"] == 0


def test_a_warehouse_that_was_restored_from_a_backup_goes_on_after_it_was_said(
    place: Place, tmp_path: Path
) -> None:
    place.home.run("sync", "rally", "sell")
    if place.home.variables.get("WAREHOUSE_URL"):
        pytest.skip("a backup of a server's database is the server's affair; the upgrade's tests restore one")
    kept = tmp_path / "backup.db"
    shutil.copyfile(place.home.path / "warehouse.db", kept)
    for system in ("rally", "sell"):
        place.source.change(40, system)
    place.settle()
    place.home.run("sync", "rally", "sell")
    for old in place.home.path.glob("warehouse.db-*"):
        old.unlink()
    shutil.copyfile(kept, place.home.path / "warehouse.db")
    place.home.run("restored", code=2)  # a question, and nobody to answer it
    told = place.home.run("restored", "--yes")
    device = re.search(r"SELL_DEVICE_UUID=([0-9a-f-]{36})", told.said)
    assert device is not None, str(told)
    place.home.variables["SELL_DEVICE_UUID"] = device[1]
    place.home.run("sync", "rally", "sell", seconds=300)
    place.require_equal()
