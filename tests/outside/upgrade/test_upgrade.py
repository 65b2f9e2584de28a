"""A home and a warehouse of an earlier version: this one goes on with them.

`make.py` says what they have been through and how they were made.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.outside.account import Account, contact, sell_contact, served
from tests.outside.comparing import Tables, rally_differences, sell_differences
from tests.outside.deployment import Dagster
from tests.outside.processes import Home, cleared, free_port, wait_for
from tests.outside.upgrade.make import DATABASES, KEPT, PACE, SCHEMA
from tests.postgres import PostgresServer, program

DATABASE = "earlier"
SECONDS = 240
SELL = ("contacts", "deals", "leads", "users", "notes", "tasks", "tags")


class Earlier:
    """The unpacked home, with the account that it mirrors."""

    def __init__(self, home: Home, account: Account, tables: Tables) -> None:
        self.home = home
        self.account = account
        self.tables = tables

    def require_equal(self) -> None:
        """Account and warehouse agree in every value; what waits in quarantine is left out."""
        waiting = {row["key"] for row in self.tables.rows("quarantine")}
        rally = {
            entity: [json.loads(raw) for key, raw in raws.items() if key not in waiting]
            for entity, raws in self.account.content["rally"].items()
        }
        sell = {kind: list(self.account.content["sell"][kind].values()) for kind in SELL}
        found = [*rally_differences(rally, self.tables), *sell_differences(sell, self.tables)]
        assert [line for line in found if not any(key in line for key in waiting)] == []


@pytest.fixture(params=DATABASES)
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Earlier]:
    """Home, warehouse and account as the earlier version left them."""
    database: str = request.param
    with tarfile.open(KEPT / f"home-{database}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    with gzip.open(KEPT / f"account-{database}.json.gz", "rt") as file:
        account = Account(json.load(file))
    tables = Tables(f"sqlite:///{tmp_path / 'home' / 'warehouse.db'}")
    with served(account) as variables:
        if database == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres_server")
            restore(server)
            variables |= {"WAREHOUSE_URL": server.url(DATABASE), "WAREHOUSE_SCHEMA": SCHEMA}
            tables = Tables(server.url(DATABASE), SCHEMA)
        start = min(re.findall(r"\d{4}-\d\d-\d\d-\d\d", " ".join(windows_in(tmp_path / "home"))))
        with cleared(Home(tmp_path, {**variables, **PACE, "RALLY_FEED_START": f"{start}:00"})) as home:
            yield Earlier(home, account, tables)


def windows_in(home: Path) -> list[str]:
    """Keys of the feed windows in Dagster's history: a feed start is never changed later."""
    history = Tables(f"sqlite:///{home / 'dagster' / 'history' / 'runs' / 'index.db'}")
    return [
        row["partition"]
        for row in history.ask("SELECT partition FROM event_logs WHERE partition IS NOT NULL")
    ]


def restore(server: PostgresServer) -> None:
    """The dump, in a database of its own."""
    with server.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {DATABASE}")
    with gzip.open(KEPT / "warehouse.sql.gz") as file:
        dump = file.read()
    options = [
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        str(server.folder),
        "-U",
        "postgres",
        "-d",
        DATABASE,
    ]
    subprocess.run([program("psql"), *options], input=dump, check=True, capture_output=True)


def change(account: Account) -> None:
    """What happens to the account after the upgrade."""
    ids = list(account.content["rally"]["contacts"])
    account.put("contacts", contact(ids[-1], firstName="After the upgrade"))
    account.put(
        "contacts", contact("00000000-0000-4000-8000-000000000001", firstName="New after the upgrade")
    )
    account.remove("contacts", ids[-2])
    account.put_sell("contact", sell_contact(4, name="After the upgrade"), 4)
    account.put_sell("contact", sell_contact(900, name="New after the upgrade"), 900)


def test_the_kept_files_are_small() -> None:
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < 1_000_000


def test_a_home_and_a_warehouse_of_an_earlier_version_go_on(earlier: Earlier) -> None:
    before = earlier.tables.count("rally_changes")
    status = json.loads(earlier.home.run("status", "--json").out)
    assert json.dumps(status).count("rally_") >= 4
    assert len(json.loads(earlier.home.run("quarantine", "--json").out)) == 1
    # The warehouse was moved, and nobody but its owner knows that it is no copy.
    told = earlier.home.run("sync", "sell", code=2, seconds=SECONDS)
    assert "adopt-device" in told.last_line
    earlier.home.run("sell", "adopt-device")
    earlier.home.run("sync", seconds=SECONDS)
    earlier.require_equal()
    change(earlier.account)
    earlier.home.run("sync", seconds=SECONDS)
    earlier.require_equal()
    assert earlier.tables.count("rally_changes") > before
    keys = [row["id"] for row in earlier.tables.rows("rally_changes")]
    assert len(keys) == len(set(keys))
    broken = earlier.tables.rows("quarantine")[0]["key"]
    earlier.account.put("contacts", contact(broken, firstName="Mended"))
    earlier.home.run("sync", "rally", seconds=SECONDS)
    earlier.home.run("replay")
    earlier.require_equal()
    assert earlier.tables.count("quarantine") == 0
    found = json.loads(earlier.home.run("verify", "--json").out)["entities"]
    assert all(counts["equal"] == counts["compared"] for counts in found.values()), found
    earlier.home.run("status")


def test_a_file_that_the_earlier_version_imported_is_known(earlier: Earlier, tmp_path: Path) -> None:
    earlier.home.run("restored", "--yes")  # the warehouse was moved: it might be a copy
    people = tmp_path / "people.csv"
    people.write_text("first_name,last_name,email\nGrace,Moss,grace@example.org\nAda,New,ada@new.example\n")
    done = earlier.home.run("import", "contacts", str(people), "--json", seconds=SECONDS)
    counts = json.loads(done.out)
    assert (counts["imported"], counts["duplicate"]) == (1, 1), counts
    emails = [
        json.loads(raw).get("email")
        for key, raw in earlier.account.content["rally"]["contacts"].items()
        if "NaN" not in raw
    ]
    assert emails.count("grace@example.org") == emails.count("ada@new.example") == 1


@pytest.mark.parametrize("earlier", ["sqlite"], indirect=True)
def test_dev_opens_the_earlier_history_and_its_feed_windows(earlier: Earlier) -> None:
    port = free_port()
    running = earlier.home.begin("dev", "--no-sandbox", "--port", str(port))
    wait_for("dev", lambda: "Dagster is up" in running.said(), seconds=SECONDS, by=running)
    dagster = Dagster(earlier.home, port, running)
    assert len(dagster.runs("SUCCESS")) >= 10
    change(earlier.account)
    run_id = dagster.launch("rally_full_extract")
    assert dagster.require_end(run_id, seconds=SECONDS) == "SUCCESS"


@pytest.mark.parametrize("command", [("sync", "rally"), ("dev", "--no-sandbox")], ids=["sync", "dev"])
@pytest.mark.parametrize("earlier", ["sqlite"], indirect=True)
def test_settings_of_dagster_that_name_what_is_gone_are_corrected(
    command: tuple[str, ...], earlier: Earlier
) -> None:
    path = earlier.home.path / "dagster" / "dagster.yaml"
    before = yaml.safe_load(path.read_text())
    gone = {"module": "rally_pipeline.orchestration.removed_long_ago", "class": "Instance"}
    old = yaml.safe_dump({**before, "instance_class": gone}, sort_keys=False)
    path.write_text(f"# mine\n{old}")
    if command[0] == "dev":
        running = earlier.home.begin(*command, "--port", str(free_port()))
        wait_for("dev", lambda: "Dagster is up" in running.said(), seconds=SECONDS, by=running)
        said = running.said()
    else:
        said = earlier.home.run(*command, seconds=SECONDS).said
    assert "removed_long_ago.Instance" in said
    assert (path.parent / "dagster.yaml.before-upgrade").read_text() == f"# mine\n{old}"
    after = yaml.safe_load(path.read_text())
    assert after == {key: value for key, value in before.items() if key != "instance_class"}
    assert "removed_long_ago" not in earlier.home.run("sync", "rally", seconds=SECONDS).said


@pytest.mark.parametrize("earlier", ["sqlite"], indirect=True)
def test_the_shipped_settings_of_the_earlier_version_still_load(earlier: Earlier) -> None:
    """Plain `dagster` reads the file as our commands leave it."""
    earlier.home.run("sync", "rally", seconds=SECONDS)
    ended = earlier.home.start(
        "dagster", "run", "list", DAGSTER_HOME=str(earlier.home.path / "dagster")
    ).wait(SECONDS)
    assert ended.code == 0, str(ended)
    assert "rally_incremental" in ended.out
    assert (earlier.home.path / "warehouse.db").stat().st_size > 0
