"""Whatever a person, a shell, a container or a clipboard puts into a setting: it works, or one line says why not."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rally_pipeline.http.urls import check_base_url, origin
from rally_pipeline.settings import DeleteMode, Settings, SettingsError, known_secrets, load_settings
from rally_pipeline.warehouse import Warehouse
from tests.warehouse.clocks import ManualClock

SECRET = "canary-pass-word"
URLS = {"rally_api_url", "sell_api_url", "signalsmith_api_url"}
TOKENS = {"rally_api_key", "sell_access_token", "signalsmith_api_token", "signalsmith_workspace_id"}
FOLDERS = {"rally_pipeline_home", "syncs_dir", "imports_dir", "exports_dir"}
VALID = {
    "rally_pipeline_home": "/tmp/a home",
    "rally_pipeline_sandbox": "true",
    "rally_pipeline_read_only": "on",
    "warehouse_url": "postgresql://user:päss word@db.example/crm",
    "warehouse_schema": "mirror",
    "rally_api_url": "https://acme.rallycrm.example/api/v1",
    "rally_api_key": "rk_live_4711",
    "rally_feed_start": "2026-02-03-04:00",
    "rally_feed_overlap_seconds": "600",
    "rally_staleness_seconds": "0",
    "rally_poll_seconds": "5",
    "rally_autostart": "yes",
    "sell_api_url": "https://api.example",
    "sell_access_token": "t" * 64,
    "sell_device_uuid": "5c1d5a0e-0000-4000-8000-000000000001",
    "sell_drain_cron": "0 6 * * mon-fri",
    "signalsmith_api_url": "http://[::1]:8790/api/v1",
    "signalsmith_api_token": "ss_token",
    "signalsmith_workspace_id": "ws-1",
    "signalsmith_timezone": "Europe/Berlin",
    "dagster_webserver_url": "http://dagster.example:3000/prefix",
    "delete_mode": "soft",
    "syncs_dir": "/tmp/syncs",
    "imports_dir": "/tmp/in",
    "exports_dir": "/tmp/out",
}
WRAPPINGS = [
    " {} ",
    "\t{}\t",
    "{}\r",
    "{}\r\n",
    "{}\n\n",
    '"{}"',
    "'{}'",
    ' "{}" \r\n',
    '" {} "',
    "\ufeff{}",
    "\u200b{}\u200b",
    "\u00a0{}\u00a0",
    "\u2060{}\u202c",
]
BROKEN = [
    f"{SECRET}\n{SECRET}",
    f"a\tb {SECRET}",
    f"\u201c{SECRET}\u201d",
    f"'{SECRET}\"",
    f'"{SECRET}',
    f"\u200bx\u200b{SECRET}\u200by",
    f"\0{SECRET}\0x",
    f"https://user:{SECRET}@acme.example/api",
    f"ftp://user:{SECRET}@acme.example",
    f"postgresql://user:{SECRET}@{SECRET}@host/db",
    f"{SECRET}://host",
    f"https://{SECRET}:99999/api",
    f"https://{SECRET}:0/api",
    f"https://[{SECRET}]/api",
    f"https://acme.example/../{SECRET}",
    f"https://acme.example/api?key={SECRET}",
    f"https://acme.example/api#{SECRET}",
    f"Bearer {SECRET}",
    f"{SECRET}\u0663\u0664",
    "\u0663\u0660",
    "9" * 5_000,
    "-1",
    "1e400",
    "nan",
    "0x10",
    "true",
    "yes",
    "1",
    "none",
    "~no-such-user-at-all/x",
    "x" * 5_000,
    "/".join(["x" * 100] * 50),
    "\udce4\udcff",
    "#",
    "%",
    "?",
    "@",
    "://",
    "[]",
    "*/0 * * * *",
]


@pytest.fixture(autouse=True)
def nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def refusal(**values: object) -> str:
    """What is said about a value: one line, no secret."""
    with pytest.raises(SettingsError) as caught:
        load_settings(**values)
    line = str(caught.value)
    assert line.isprintable()
    assert SECRET not in line
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return line


def test_the_tables_here_cover_every_setting() -> None:
    assert VALID.keys() >= Settings.model_fields.keys()


def test_every_setting_has_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description[0].isupper(), name
        assert field.description.endswith("."), name


@pytest.mark.parametrize("name", VALID)
def test_what_surrounds_a_value_does_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, from `.env` and as an argument."""
    plain = getattr(load_settings(**{name: VALID[name]}), name)
    for wrapping in WRAPPINGS:
        value = wrapping.format(VALID[name])
        assert getattr(load_settings(**{name: value}), name) == plain
        monkeypatch.setenv(name.upper(), value)
        assert getattr(load_settings(), name) == plain
        monkeypatch.delenv(name.upper())
        Path(".env").write_text(f"{name.upper()}={value}\n", encoding="utf-8", newline="")
        assert getattr(load_settings(), name) == plain


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("value", ["", " ", "\t\r\n", '""', "''", '" "', "\u200b", "\ufeff"])
def test_a_blank_value_counts_as_absent(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), value)
    assert getattr(load_settings(), name) == getattr(Settings(), name)
    assert name not in load_settings().model_fields_set


@pytest.mark.parametrize("name", VALID)
def test_a_nasty_value_works_or_is_one_line_that_names_the_variable(name: str) -> None:
    for value in BROKEN:
        try:
            settings = load_settings(**{name: value})
        except SettingsError as error:
            line = str(error)
            assert line.startswith(f"{name.upper()}: ")
            assert line.isprintable()
            assert SECRET not in line
            assert len(line) < 300
        else:
            found = getattr(settings, name)
            if name in URLS:
                assert check_base_url(found) == found
                assert origin(found)[1].isascii()
            if name in TOKENS:
                sent = found if isinstance(found, str) else found.get_secret_value()
                assert sent.encode("ascii").isalnum() or set(sent) <= {*map(chr, range(0x21, 0x7F))}
            if name in FOLDERS:
                assert found.resolve().is_absolute()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("HTTPS://ACME.RallyCRM.example/api/V1", "https://acme.rallycrm.example/api/V1"),
        ("HTTP://LocalHost:8790/api/v1/", "http://localhost:8790/api/v1"),
        ("https://acme.example/api/v1///", "https://acme.example/api/v1"),
        ("https://acme.example:/api", "https://acme.example/api"),
        ("https://acme.example:8443", "https://acme.example:8443"),
        ("http://[::1]:8790/", "http://[::1]:8790"),
        ("https://[2001:DB8::1]/api", "https://[2001:db8::1]/api"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_a_url_has_one_spelling(typed: str, meant: str) -> None:
    assert load_settings(rally_api_url=typed).rally_api_url == meant
    assert check_base_url(meant) == meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("acme.rallycrm.example/api/v1", "not an http(s) URL"),
        ("http://acme.example/api", "use https"),
        ("http://0.0.0.0/api", "use https"),
        ("https://acme.example:99999/api", "the port (1 to 65535)"),
        ("https://acme.example:0/api", "the port (1 to 65535)"),
        ("https://acme.example:http/api", "the port (1 to 65535)"),
        ("https://acme..example", "the host"),
        ("https://[::1", "the host"),
        ("https://bücher.example/api", "(U+00FC), which no URL holds"),
        ("https://bücher.example/api", "xn-- form"),
        ("https://acme\u2011corp.example", "non-breaking hyphen (U+2011)"),
        ("https:\\\\acme.example", "reverse solidus (U+005C)"),
        ("https://acme.example/a b", "a blank (U+0020)"),
        ("https://acme.example/api\n/v1", "a line break (U+000A)"),
        ("https://acme.example/api/../v1", "the path behind the host"),
        (f"https://me:{SECRET}@acme.example", "user, password, query and fragment do not belong"),
        (f"https://acme.example?key={SECRET}", "user, password, query and fragment do not belong"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(typed: str, said: str) -> None:
    for name in sorted(URLS):
        line = refusal(**{name: typed})
        assert line.startswith(f"{name.upper()}: ")
        assert said in line


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (f"{SECRET[:6]}\n{SECRET[6:]}", "character 7 is a line break"),
        (f"\u201c{SECRET}\u201d", "left double quotation mark (U+201C)"),
        (f"{SECRET}\u2019s", "right single quotation mark (U+2019)"),
        (f"Bearer {SECRET}", "character 7 is a blank"),
        (f"{SECRET}\u200b{SECRET}", "zero width space (U+200B)"),
        (f"{SECRET}ä", "(U+00E4)"),
    ],
)
def test_a_key_that_no_header_carries_is_refused_without_being_shown(typed: str, said: str) -> None:
    for name in sorted(TOKENS):
        assert said in refusal(**{name: typed})


def test_a_feed_cannot_start_in_the_future() -> None:
    clock = ManualClock()
    start = load_settings(clock, rally_feed_start="2026-03-01-12:00").rally_feed_start
    assert start == datetime(2026, 3, 1, 12, tzinfo=UTC)
    with pytest.raises(SettingsError, match=r"RALLY_FEED_START: lies in the future .*2026-03-01 12:00 UTC"):
        load_settings(clock, rally_feed_start="2026-03-01-13:00")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("yesterday", "not of the form"),
        ("2026-01-01", "not of the form"),
        ("2026-13-01-00:00", "not of the form"),
        ("2026-01-01-00:30", "whole hour"),
        ("0001-01-01-00:00", "too long ago"),
        ("9999-12-31-23:00", "in the future"),
    ],
)
def test_a_feed_start_that_cannot_be_used_is_refused(typed: str, said: str) -> None:
    assert said in refusal(rally_feed_start=typed)


def test_words_are_taken_in_capitals_too() -> None:
    settings = load_settings(delete_mode="SOFT", rally_autostart="TRUE", rally_pipeline_sandbox="No")
    assert (settings.delete_mode, settings.rally_autostart) == (DeleteMode.SOFT, True)
    assert settings.rally_pipeline_sandbox is False


HOMES = [
    "plain",
    "a%2Fb",
    "%41",
    "100%",
    "what?",
    "h#1",
    "~",
    "~x",
    "a blank",
    "it's",
    'a "home"',
    "ünïcode",
    "a;b&c=d",
    "[x]",
    "$HOME",
    "back\\slash",
    "file:x",
    ":memory:",
    "a@b:c",
    os.fsdecode(b"latin-\xe4"),
]


@pytest.mark.parametrize("name", HOMES)
def test_the_warehouse_lies_in_the_home_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    settings = load_settings(rally_pipeline_home=str(home))
    assert settings.home_path == home
    with Warehouse.open(settings.warehouse) as warehouse:
        assert warehouse.identity().id
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert {path.name for path in home.iterdir()} >= {"warehouse.db", "warehouse.db.witness"}
    assert settings.warehouse_is_file


def test_a_home_in_the_persons_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in sorted(FOLDERS):
        assert getattr(load_settings(**{name: "~/data"}), name) == tmp_path / "data"
    assert "whole path" in refusal(rally_pipeline_home="~no-such-user-at-all/x")


def test_links_in_a_circle_are_no_home(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "circle" in refusal(rally_pipeline_home=str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        (f"postgresql://u:{SECRET}@h/d", {SECRET}),
        ("postgresql://u:p%40ss%2Fword@h/d", {"p%40ss%2Fword", "p@ss/word"}),
        ("postgresql://u:p/a?b#c@h/d", {"p/a?b#c"}),
        ("postgresql://u:left@right@h/d", {"left@right"}),
        (f"postgresql:///d?host=h&password={SECRET}", {SECRET}),
        ("sqlite:////data/x.db", set()),
    ],
)
def test_every_spelling_of_the_warehouses_password_is_known_for_redaction(
    url: str, hidden: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(load_settings(warehouse_url=url).secrets()) >= hidden
    monkeypatch.setenv("WAREHOUSE_URL", url)
    monkeypatch.setenv("RALLY_API_KEY", ' "broken key" ')
    assert {*known_secrets()} >= {*hidden, "broken key"}


FILES = [
    (b"\xef\xbb\xbfRALLY_POLL_SECONDS=7\n", 7),
    (b"RALLY_POLL_SECONDS=7\r\nRALLY_AUTOSTART=true\r\n", 7),
    (b"export RALLY_POLL_SECONDS=7", 7),
    (b"  export   RALLY_POLL_SECONDS = '7'  # seconds\n", 7),
    (b'RALLY_POLL_SECONDS="7"\n', 7),
    (b"rally_poll_seconds=7\n", 7),
    (b"RALLY_POLL_SECONDS\n", 60),
    (b"RALLY_POLL_SECONDS=\n", 60),
    (b"# RALLY_POLL_SECONDS=7\n", 60),
    (b"this is no assignment at all\nRALLY_POLL_SECONDS=7\n", 7),
    (b"", 60),
]


@pytest.mark.parametrize(("content", "seconds"), FILES)
def test_a_file_is_read_as_people_write_it(content: bytes, seconds: int) -> None:
    Path(".env").write_bytes(content)
    assert load_settings().rally_poll_seconds == seconds


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"# first\nRALLY_API_KEY=" + "schlüssel".encode("latin-1") + b"\n", r"\.env, line 2: not UTF-8"),
        ("RALLY_API_KEY=x\n".encode("utf-16"), r"\.env is not UTF-8 \(UTF-16\?\)"),
        ("RALLY_API_KEY=x\n".encode("utf-16-le"), r"\.env is not UTF-8 \(UTF-16\?\)"),
        (f'X=1\nRALLY_API_KEY="{SECRET}\n'.encode(), r"\.env, line 2: RALLY_API_KEY cannot be read"),
        (f'RALLY_API_KEY="{SECRET}" tail\n'.encode(), r"\.env, line 1: RALLY_API_KEY cannot be read"),
        (b"RALLY_API_KEY: x\n", r"\.env, line 1: RALLY_API_KEY cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(content: bytes, said: str) -> None:
    Path(".env").write_bytes(content)
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings()
    assert str(caught.value).isprintable()
    assert SECRET not in str(caught.value)


def test_a_folder_of_that_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert load_settings().rally_poll_seconds == 60


def test_the_environment_wins_over_the_file_and_an_argument_over_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("RALLY_POLL_SECONDS=7\nRALLY_STALENESS_SECONDS=1\n")
    monkeypatch.setenv("RALLY_POLL_SECONDS", "8")
    assert load_settings().rally_poll_seconds == 8
    assert load_settings(rally_poll_seconds=9).rally_poll_seconds == 9
    assert load_settings().rally_staleness_seconds == 1


def test_several_mistakes_are_named_together() -> None:
    line = refusal(rally_api_url="x", rally_poll_seconds="often", rally_autostart="ja")
    assert [part.partition(":")[0] for part in line.split("; ")] == [
        "RALLY_API_URL",
        "RALLY_POLL_SECONDS",
        "RALLY_AUTOSTART",
    ]


HEAVY = """
import sys
from rally_pipeline.settings import load_settings

load_settings()
print({"sqlalchemy", "psycopg", "requests", "dagster"} & sys.modules.keys())
"""


def test_reading_settings_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
