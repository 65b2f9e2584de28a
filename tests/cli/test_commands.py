"""What the commands say, and with which exit code they end."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading

import pytest

MOST_CHANGES = 2_000
"""Of a source that does not rest: a machine so slow that no read would catch up with it is given a chance."""


def one_line(text: str) -> str:
    """The error: a single line, and never a traceback."""
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("Error: ")]
    return line


def test_help_lists_what_a_newcomer_needs_first(shell):
    listed = shell.say("--help").stdout
    for command in (
        "demo",
        "dev",
        "sandbox",
        "sync",
        "verify",
        "status",
        "quarantine",
        "replay",
        "allow-deletes",
    ):
        assert f"\n  {command} " in listed
    assert listed.index("\n  demo") < listed.index("\n  sync")


@pytest.mark.parametrize(
    "command",
    ["demo", "dev", "sandbox", "sync", "verify", "status", "quarantine", "replay", "allow-deletes"],
)
def test_every_command_explains_itself(shell, command):
    result = shell.say(command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5


def test_verify_counts_each_kind_of_difference_and_heals_just_those(filled):
    with sqlite3.connect(filled.home / "warehouse.db") as connection:
        connection.execute("DELETE FROM rally_deals WHERE id IN (SELECT id FROM rally_deals LIMIT 2)")
        connection.execute("UPDATE rally_companies SET name = 'wrong', _version = 0 WHERE rowid = 1")
        connection.execute("UPDATE rally_activities SET id = 'f' || id WHERE rowid = 1")
    found = filled.say("verify", "--json")
    assert found.exit_code == 1
    assert "verify --heal" in one_line(found.stderr)
    entities = json.loads(found.stdout)["entities"]
    assert entities["deals"]["missing"] == 2
    assert entities["companies"]["stale"] == 1
    assert (entities["activities"]["missing"], entities["activities"]["extra"]) == (1, 1)
    assert entities["contacts"]["differences"] == 0
    assert "missing in rally_deals: " in filled.say("verify").stdout
    healed = filled.say("verify", "--heal", "--json")
    assert healed.exit_code == 0, healed.stderr
    assert json.loads(healed.stdout)["equal"]
    assert filled.say("verify").exit_code == 0


def test_verify_after_ordinary_edits_is_content(filled, sandbox):
    sandbox.sandbox.rally.mutate(3)
    found = filled.say("verify", "rally", "--json")
    assert found.exit_code == 0, found.stderr
    entities = json.loads(found.stdout)["entities"]
    assert set(entities) == {"contacts", "companies", "deals", "activities"}
    named = {"compared", "equal", "missing", "extra", "stale", "in_flight", "repaired", "left", "examples"}
    assert all(counts.keys() >= named for counts in entities.values())
    assert not any(counts["differences"] for counts in entities.values())


@pytest.mark.parametrize("options", [[], ["--heal"]])
def test_verify_beside_a_source_that_never_rests_ends_well(filled, sandbox, options):
    rally = sandbox.sandbox.rally
    rally.switch(max_limit=4)
    kinds = {"update": 3.0, "insert": 1.0, "delete": 1.0}
    rested = threading.Event()

    def live() -> None:
        for _ in range(MOST_CHANGES):
            if rested.wait(0.002):
                break
            rally.mutate(1, kinds)

    source = threading.Thread(target=live)
    source.start()
    try:
        done = filled.say("verify", "--json", *options)
    finally:
        rested.set()
        source.join()
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["equal"], found["differences"], found["left"]) == (True, 0, 0)
    assert sum(counts["repaired"] for counts in found["entities"].values()) == 0


def test_verify_sees_a_changed_cell_and_heals_it(filled):
    with sqlite3.connect(filled.home / "warehouse.db") as connection:
        connection.execute("UPDATE rally_contacts SET email = 'wrong@example.org'")
        (rows,) = connection.execute("SELECT count(*) FROM rally_contacts").fetchone()
    found = filled.say("verify")
    assert found.exit_code == 1
    assert f"{rows} rows differ" in one_line(found.stderr)
    healed = filled.say("verify", "--heal", "--json")
    assert healed.exit_code == 0, healed.stderr
    contacts = json.loads(healed.stdout)["entities"]["contacts"]
    assert (contacts["stale"], contacts["repaired"], contacts["left"]) == (rows, rows, 0)
    with sqlite3.connect(filled.home / "warehouse.db") as connection:
        wrong = connection.execute("SELECT 1 FROM rally_contacts WHERE email = 'wrong@example.org'")
        assert wrong.fetchall() == []


def test_verify_says_what_healing_could_not_repair(filled, sandbox):
    rally = sandbox.sandbox.rally
    rally.distort("contacts", rally.ids("contacts")[0], append=',"email":"twice@example.org"')
    done = filled.say("verify", "--heal", "--json")
    assert done.exit_code == 1
    assert "1 row differs even after healing" in one_line(done.stderr)
    found = json.loads(done.stdout)
    assert (found["equal"], found["differences"], found["left"]) == (False, 1, 1)
    assert found["entities"]["contacts"]["repaired"] == 0
    rally.restore("contacts", rally.ids("contacts")[0])
    assert filled.say("verify").exit_code == 0


def test_verify_before_the_first_sync_says_what_to_do(connected):
    done = connected.say("verify")
    assert done.exit_code == 2
    assert one_line(done.stderr).endswith("run `rally-pipeline sync rally` first")
    assert done.stdout == ""


def test_status_has_every_figure_of_every_table(filled, sandbox):
    found = json.loads(filled.say("status", "--json").stdout)["systems"]["rally"]
    counts = sandbox.sandbox.rally.counts()
    assert {name: found["tables"][f"rally_{name}"]["rows"] for name in counts} == counts
    assert set(found["tables"]["rally_deals"]) == {
        "rows",
        "synced_through",
        "lag_seconds",
        "open_marks",
        "oldest_mark_seconds",
        "quarantined",
        "last_run",
    }
    assert found["problems"] == []
    shown = filled.say("status").stdout
    assert "rally_contacts" in shown
    assert "32" in shown


def test_status_makes_no_request(filled, sandbox):
    sandbox.sandbox.log.clear()
    assert filled.say("status").exit_code == 0
    assert len(sandbox.sandbox.log) == 0


@pytest.mark.parametrize("command", [["sync"], ["sync", "rally"], ["verify"], ["status"], ["replay"]])
def test_nothing_configured_is_a_mistake_that_names_the_variables(shell, command):
    done = shell.say(*command)
    assert done.exit_code == 2
    assert "RALLY_API_URL" in one_line(done.stderr)
    assert done.stdout == ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_wrong_key_is_a_mistake_and_never_printed(connected):
    done = connected.say("verify", RALLY_API_KEY="rk_live_canary_4711")
    assert done.exit_code == 2
    assert "RALLY_API_KEY" in one_line(done.stderr)
    assert "canary" not in done.output


def test_an_unreachable_host_is_a_mistake(connected):
    done = connected.say("verify", RALLY_API_URL=f"http://127.0.0.1:{free_port()}/api/v1")
    assert done.exit_code == 2
    assert "RALLY_API_URL" in one_line(done.stderr)


def test_a_proxy_named_in_the_dotenv_file_is_used_and_its_password_is_never_printed(shell):
    proxy = f"127.0.0.1:{free_port()}"
    (shell.folder / ".env").write_text(
        "RALLY_API_URL=https://crm.example.test/api/v1\nRALLY_API_KEY=rk_test_key1\n"
        f"HTTPS_PROXY=http://proxyuser:sesame4711@{proxy}\n"
    )
    done = shell.run("verify")
    assert done.returncode == 2
    assert f"the proxy {proxy} cannot be used: connection refused; check HTTPS_PROXY" in one_line(done.stderr)
    assert "sesame" not in done.stdout + done.stderr


def test_an_address_that_answers_with_a_web_page_is_a_mistake(connected, sandbox):
    sandbox.sandbox.faults.add("html_200", api="rally", times=None)
    done = connected.say("verify")
    assert done.exit_code == 2
    assert "RALLY_API_URL" in one_line(done.stderr)
    assert "<html" not in done.stderr.lower()


def test_a_web_page_in_the_middle_of_a_run_is_asked_past_and_else_a_failure_that_passes(connected, sandbox):
    sandbox.sandbox.faults.add("html_200", api="rally", path="*/deals", times=None)
    done = connected.say("sync", "rally")
    assert done.exit_code == 1, done.stderr
    line = done.stderr.splitlines()[-1]
    assert "HTML or XML instead of a JSON list or object" in line
    assert line.endswith("such answers usually pass: run it again")
    assert "RALLY_API_URL" not in done.stderr
    sandbox.sandbox.faults.clear()
    sandbox.sandbox.faults.add("html_200", api="rally", after=2, times=3)
    done = connected.say("sync", "rally")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WAREHOUSE_URL", "mysql://root@localhost/x", "WAREHOUSE_URL"),
        ("WAREHOUSE_URL", "not a url", "WAREHOUSE_URL"),
        ("WAREHOUSE_URL", "postgresql+psycopg://u:pw_canary@127.0.0.1:1/x", "127.0.0.1"),
        ("WAREHOUSE_URL", "sqlite:////proc/nowhere/warehouse.db", "/proc/nowhere"),
        ("WAREHOUSE_URL", "postgres://u:pw@canary@127.0.0.1:1/x", "%40"),
        ("WAREHOUSE_URL", "postgres://u:pw_canary@127.0.0.1:1/x?schema=y", "WAREHOUSE_SCHEMA"),
        ("WAREHOUSE_URL", "postgres://u:pw_canary@no-such-host.invalid/x", "cannot be resolved"),
        ("WAREHOUSE_URL", "postgres://u:pw_canary@127.0.0.1:99999/x", "65535"),
        ("WAREHOUSE_URL", "sqlite:///:memory:", "plain file"),
        ("RALLY_API_KEY", "rk_live_canary\nnext", "RALLY_API_KEY: character 15 is a line break"),
        ("RALLY_API_KEY", "\u201crk_live_canary\u201d", "RALLY_API_KEY: character 1"),
        ("RALLY_API_URL", "https://me:pw_canary@acme.example/api/v1", "RALLY_API_URL: user, password"),
        ("RALLY_API_URL", "https://acme.example:99999/api/v1", "65535"),
        ("RALLY_FEED_START", "9999-01-01-00:00", "RALLY_FEED_START: lies in the future"),
        ("RALLY_PIPELINE_HOME", "/dev/null", "RALLY_PIPELINE_HOME: /dev/null cannot be a folder"),
        ("RALLY_PIPELINE_HOME", "a%2Fb", "RALLY_PIPELINE_HOME: Dagster"),
        ("RALLY_FEED_START", "yesterday", "RALLY_FEED_START"),
        ("RALLY_POLL_SECONDS", "often", "RALLY_POLL_SECONDS"),
        ("RALLY_API_URL", "http://acme.example/api/v1", "https"),
        ("RALLY_PIPELINE_HOME", "/proc/nowhere", "/proc/nowhere"),
    ],
)
def test_settings_that_cannot_be_used_are_named_in_one_line(connected, name, value, words):
    done = connected.say("verify", **{name: value})
    assert done.exit_code == 2, done.stderr
    assert words in one_line(done.stderr)
    assert "canary" not in done.output


def test_a_device_that_is_no_uuid_is_one_line(connected, sandbox):
    connected.variables |= {
        name: value for name, value in sandbox.environment().items() if name.startswith("SELL")
    }
    done = connected.say("sync", "sell", SELL_DEVICE_UUID="my-laptop")
    assert done.exit_code == 2, done.stderr
    assert "SELL_DEVICE_UUID is not a UUID" in one_line(done.stderr)


def test_a_settings_file_that_is_no_utf_8_is_one_line(connected):
    (connected.folder / ".env").write_bytes(b"# Schl\xfcssel\nRALLY_POLL_SECONDS=60\n")
    done = connected.say("verify")
    assert done.exit_code == 2
    assert one_line(done.stderr) == "Error: .env, line 1: not UTF-8 (Latin-1?): save the file as UTF-8"


def test_an_error_that_nobody_expects_shows_no_secret(connected, monkeypatch):
    from rally_pipeline.cli import status

    def burst(*_: object) -> None:
        raise RuntimeError(f"the key is {connected.variables['RALLY_API_KEY']}")

    monkeypatch.setattr(status, "read_settings", burst)
    done = connected.say("status")
    assert done.exit_code == 1
    assert one_line(done.stderr).startswith("Error: unexpected RuntimeError: the key is ***")


def test_an_error_is_one_line_whatever_a_path_holds(connected):
    done = connected.say("import", "contacts", "no\nsuch\udce4file.csv")
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "such" in line


def test_a_warehouse_of_a_newer_version_is_refused(filled):
    with sqlite3.connect(filled.home / "warehouse.db") as connection:
        connection.execute("UPDATE warehouse_identity SET schema_version = 999")
    done = filled.say("verify")
    assert done.exit_code == 2
    assert "newer version" in one_line(done.stderr)


def test_quarantine_lists_what_could_not_be_stored_and_replay_tries_again(connected, sandbox):
    from rally_pipeline.rally.connection import open_mirror
    from rally_pipeline.rally.entities import Entity

    rally = sandbox.sandbox.rally
    victim = rally.ids("contacts")[0]
    rally.distort("contacts", victim, raw={"id": "7e999"})
    with open_mirror(connected.settings()) as mirror:
        mirror.extract(Entity.CONTACTS)
    (held,) = json.loads(connected.say("quarantine", "--json").stdout)
    assert held["source"] == "rally.contacts"
    assert held["reason"]
    assert "7e999" in held["raw"]
    assert "rally.contacts" in connected.say("quarantine").stdout


def test_a_mass_delete_stops_and_waits_for_a_persons_word(filled, sandbox):
    from rally_pipeline.rally.connection import open_mirror
    from rally_pipeline.rally.entities import Entity

    connected, rally = filled, sandbox.sandbox.rally
    rally.mutate(300, kinds=["insert"], entities=["companies"])
    with open_mirror(connected.settings()) as mirror:
        mirror.extract(Entity.COMPANIES)
    sandbox.sandbox.clock.advance(100)
    for company in rally.ids("companies")[:150]:
        rally.delete("companies", company)
    rally.clear_feed()
    before = stored_companies(connected)
    stopped = connected.say("verify", "--heal")
    assert stopped.exit_code == 2, stopped.output
    assert "rally-pipeline allow-deletes companies 150" in one_line(stopped.stderr)
    assert stored_companies(connected) == before
    assert connected.say("allow-deletes", "companies", "150").exit_code == 0
    healed = connected.say("verify", "--heal")
    assert healed.exit_code == 0, healed.stderr
    assert connected.say("verify").exit_code == 0


def stored_companies(shell) -> int:
    with sqlite3.connect(shell.home / "warehouse.db") as connection:
        (count,) = connection.execute("SELECT count(*) FROM rally_companies").fetchone()
    return int(count)


@pytest.mark.parametrize("command", ["sandbox", "dev"])
def test_a_port_in_use_is_a_mistake(shell, command):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = shell.say(command, "--port", port)
    assert done.exit_code == 2
    assert port in one_line(done.stderr)


@pytest.mark.parametrize(
    "command",
    [["sync", "hubspot"], ["verify", "hubspot"], ["sandbox", "--faults", "nonsense"], ["frobnicate"]],
)
def test_unknown_names_are_mistakes_of_usage(shell, command):
    done = shell.say(*command)
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
