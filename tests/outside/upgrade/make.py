"""How the homes in `kept` were made: by the commands of an earlier commit, one home on each database.

    git worktree add --detach /tmp/earlier a4d5007      # and install it there into a .venv
    python -m tests.outside.upgrade.make /tmp/earlier/.venv/bin/rally-pipeline

Each home has seen a first sync of all three systems, changes and a second sync, an import with a row that was
refused, a backfill of feed windows, a record in quarantine, changes that were found but not yet fetched again, and
changes that were not even read.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.outside.account import Account, contact, filled, sell_contact, served, stamp
from tests.postgres import program, running_server

KEPT = Path(__file__).parent / "kept"
DATABASES = ("sqlite", "postgresql")
SCHEMA = "mirror"
PACE = {"RALLY_FEED_OVERLAP_SECONDS": "5", "RALLY_STALENESS_SECONDS": "1"}
PEOPLE = (
    "first_name,last_name,email",
    "Grace,Moss,grace@example.org",
    "Zoë,Twice,zoe.1@example.org",
    ",,no@name.example",
)
BROKEN = '{"id": "%s", "firstName": "Broken", "leadScore": NaN, "updatedAt": "%s"}'


def live(program_path: str, home: Path, variables: dict[str, str], account: Account) -> None:
    """What a home of the earlier version went through."""
    system = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    start = {"RALLY_FEED_START": hour.strftime("%Y-%m-%d-%H:%M")}
    environment = {**system, **variables, **PACE, **start, "RALLY_PIPELINE_HOME": str(home)}

    def run(*arguments: str, codes: tuple[int, ...] = (0,)) -> None:
        command = [program_path, *arguments]
        done = subprocess.run(
            command,
            check=False,
            cwd=home.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        print(*arguments, "->", done.returncode, done.stderr[-300:])  # noqa: T201
        assert done.returncode in codes, done.stdout + done.stderr

    run("sync")
    ids = list(account.content["rally"]["contacts"])
    account.put("contacts", contact(ids[0], firstName="Changed once"))
    account.remove("contacts", ids[1])
    account.put("contacts", contact(ids[2]), raw=BROKEN % (ids[2], stamp()))
    account.put_sell("contact", sell_contact(1, name="Changed once"), 1)
    account.put_sell("contact", None, 2)
    run("sync", codes=(0, 1))
    people = home.parent / "people.csv"
    people.write_text("\n".join(PEOPLE) + "\n")
    run("import", "contacts", str(people), codes=(0, 1))
    _backfill(program_path, environment, home, hour)
    account.put("contacts", contact(ids[3], firstName="Found, not fetched"))
    run("sync", "rally", "--no-wait")
    account.put("contacts", contact(ids[4], firstName="Not read yet"))
    account.remove("contacts", ids[5])
    account.put_sell("contact", sell_contact(3, name="Not read yet"), 3)


def _backfill(program_path: str, environment: dict[str, str], home: Path, hour: datetime) -> None:
    """One finished run over two windows, as the UI launches it."""
    ends = {"start": hour, "end": hour + timedelta(hours=1)}
    tags = {f"dagster/asset_partition_range_{end}": at.strftime("%Y-%m-%d-%H:%M") for end, at in ends.items()}
    tags |= {"dagster/backfill": "earlier1"}
    options = ["-m", "rally_pipeline.definitions", "-j", "rally_incremental", "--tags", json.dumps(tags)]
    command = [str(Path(program_path).with_name("dagster")), "job", "execute", *options]
    variables = {**environment, "DAGSTER_HOME": str(home / "dagster")}
    done = subprocess.run(
        command, check=False, cwd=home.parent, env=variables, timeout=300, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def make(program_path: str, database: str, folder: Path) -> None:
    """One home and its warehouse, packed into `KEPT`."""
    account = filled(len(database))
    home = folder / "home"
    with running_server() as server, served(account) as variables:
        if database == "postgresql":
            with server.connect() as connection:
                connection.execute(f"CREATE SCHEMA {SCHEMA}")
            variables["WAREHOUSE_URL"] = server.url()
            variables["WAREHOUSE_SCHEMA"] = SCHEMA
        live(program_path, home, variables, account)
        if database == "postgresql":
            dump = [
                program("pg_dump"),
                "-h",
                server.folder,
                "-U",
                "postgres",
                "-n",
                SCHEMA,
                "--inserts",
                "-O",
            ]
            with gzip.open(KEPT / "warehouse.sql.gz", "wb", compresslevel=9) as file:
                file.write(subprocess.run(dump, check=True, capture_output=True).stdout)
    with gzip.open(KEPT / f"account-{database}.json.gz", "wt", compresslevel=9) as file:
        json.dump(account.content, file)
    with tarfile.open(KEPT / f"home-{database}.tar.xz", "w:xz", preset=9) as archive:
        archive.add(home, "home")


def main() -> None:
    """Make them anew."""
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir()
    for database in DATABASES:
        with tempfile.TemporaryDirectory() as folder:
            make(sys.argv[1], database, Path(folder))


if __name__ == "__main__":
    main()
