"""The rounds of the idle benchmark: a mirror that is up to date, then polls and runs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measuring.contestant import ContestantFailed, Sample, run_contestant
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.options import parser_of, tell
from benchmarks.measuring.report import Goal, Report, Series
from benchmarks.source.running import RunningSource, running_source
from rally_pipeline.orchestration.windows import WindowRange, hour_of

_ROOT = Path(__file__).parents[2]
_POLL = "poll, nothing new"
_RUN = "Dagster run, from request to success"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options."""
    made = parser_of(doc)
    made.add_argument("--rows", type=int, default=20_000, help="contacts of the tenant")
    made.add_argument("--polls", type=int, default=100)
    return made


def measure(options: argparse.Namespace) -> Report:
    """All rounds."""
    settings = {"rows": options.rows, "polls": options.polls, "rounds": options.rounds}
    facts = ("CPU ms a poll", "wall ms a poll", "requests a poll", "bytes a poll")
    report = Report("idle", settings, Machine.look(("dagster-webserver",)), shown=facts)
    with running_source(options.rows) as source, tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        office = _Office(source, Path(folder))
        office.catch_up()
        poll, ours, empty = Series(_POLL, "ours"), Series(_RUN, "nothing to do"), Series(_RUN, "empty asset")
        report.series += [poll, ours, empty]
        for _ in range(options.rounds):
            poll.samples.append(office.poll(options.polls))
            ours.samples.append(office.run_ours())
            empty.samples.append(office.run_empty())
            tell(
                f"poll {poll.samples[-1].facts}; runs {ours.samples[-1].wall:.2f}, {empty.samples[-1].wall:.2f} s"
            )
    report.goals += _goals(poll, ours, empty)
    return report


class _Office:
    """A home folder with a warehouse and Dagster's storage, connected to the source."""

    def __init__(self, source: RunningSource, folder: Path) -> None:
        self._source = source
        self._database = f"sqlite:///{folder / 'warehouse.db'}"
        self._environment = {
            "RALLY_PIPELINE_HOME": str(folder),
            "DAGSTER_HOME": str(folder / "dagster"),
            "WAREHOUSE_URL": self._database,
            "RALLY_API_URL": source.url,
            "RALLY_API_KEY": "rk_benchmark",
            "RALLY_STALENESS_SECONDS": "0",
        }

    def catch_up(self) -> None:
        """Full extracts, 2,000 changes, and the feed up to now: `rally-pipeline sync rally`."""
        command = [sys.executable, "-m", "rally_pipeline.cli", "sync", "rally"]
        self._run(command)
        self._source.change(2_000)
        self._run(command)

    def poll(self, polls: int) -> Sample:
        """Polls in one process; what they cost at the server is its own count."""
        requests, sent = self._source.requests(), self._source.sent()
        arguments = {"url": self._source.url, "database": self._database, "polls": polls}
        sample = run_contestant("benchmarks.idle.contestants:poll", arguments, limit=300)
        made = sample.facts["polls"]
        requests, sent = self._source.requests() - requests, self._source.sent() - sent
        facts = {**sample.facts, "requests a poll": requests / made, "bytes a poll": round(sent / made)}
        return replace(sample, requests=requests, facts=facts)

    def run_ours(self) -> Sample:
        """The incremental job for the running hour."""
        hour = hour_of(datetime.now(UTC))
        tags = json.dumps(WindowRange(hour, hour).tags)
        requests = self._source.requests()
        sample = self._execute("rally_pipeline.definitions", "rally_incremental", "--tags", tags)
        return replace(sample, requests=self._source.requests() - requests)

    def run_empty(self) -> Sample:
        """An asset that does nothing, in the same Dagster storage."""
        return self._execute("benchmarks.idle.empty_location", "empty_job")

    def _execute(self, module: str, job: str, *more: str) -> Sample:
        command = [sys.executable, "-m", "dagster", "job", "execute", "-m", module, "-j", job, *more]
        return run_contestant(
            "benchmarks.idle.contestants:execute",
            {"command": command},
            limit=300,
            environment=self._environment,
        )

    def _run(self, command: list[str]) -> None:
        import os

        environment = {**os.environ, **self._environment}
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ContestantFailed(done.stdout[-1_000:] + done.stderr[-1_000:])


def _goals(poll: Series, ours: Series, empty: Series) -> Iterator[Goal]:
    requests = max(sample.facts["requests a poll"] for sample in poll.samples)
    yield Goal(f"{_POLL}: requests", requests, 1, at_most=True, unit="")
    yield Goal(
        f"{_RUN}: nothing to do - empty asset",
        ours.wall - empty.wall,
        0.5,
        at_most=True,
        unit="s",
        cpu=ours.cpu - empty.cpu,
    )
