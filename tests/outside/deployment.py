"""Dagster as it is deployed: `rally-pipeline dev`, or code server, webserver and daemon as processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.outside.processes import ROOT, Home, Running, cleared, free_port, is_listening, wait_for
from tests.outside.source import OPENER

UP_SECONDS = 180
LOCATION = "rally_pipeline"
FINISHED = ("SUCCESS", "FAILURE", "CANCELED")

LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
RUNS = """
query($where: RunsFilter!) {
  runsOrError(filter: $where) { ... on Runs { results { runId status jobName tags { key value } } } }
}"""
LOGS = """
query($id: ID!) {
  logsForRun(runId: $id) { ... on EventConnection { events { ... on MessageEvent { message } } } }
}"""
SLOTS = "{ instance { concurrencyLimits { concurrencyKey claimedSlots { runId } pendingSteps { runId } } } }"
JOBS = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name jobs { name } } } } }"
LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"


@dataclass
class Dagster:
    """A webserver that can be asked."""

    home: Home
    port: int
    running: Running

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        url = f"http://127.0.0.1:{self.port}/graphql"
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
        with OPENER.open(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def is_up(self) -> bool:
        """Whether the code location is there, under its one name, with its jobs."""
        entries = self.ask(LOCATIONS)["workspaceOrError"].get("locationEntries", [])
        loaded = [(entry["name"], entry["loadStatus"]) for entry in entries] == [(LOCATION, "LOADED")]
        return loaded and bool(self.ask(JOBS)["repositoriesOrError"].get("nodes"))

    def runs(self, *statuses: str, job: str | None = None, **tags: str) -> list[dict[str, Any]]:
        """Runs in these states, the newest first."""
        where: dict[str, Any] = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        if statuses:
            where["statuses"] = list(statuses)
        if job:
            where["pipelineName"] = job
        found: list[dict[str, Any]] = self.ask(RUNS, where=where)["runsOrError"]["results"]
        return found

    def status(self, run_id: str) -> str:
        """State of a run."""
        (found,) = self.ask(RUNS, where={"runIds": [run_id]})["runsOrError"]["results"]
        status: str = found["status"]
        return status

    def launch(self, job: str, **tags: str) -> str:
        """Launch a job as the UI does; returns the run's id."""
        (found,) = self.ask(JOBS)["repositoriesOrError"]["nodes"]
        assert job in {known["name"] for known in found["jobs"]}, found
        where = {"repositoryLocationName": LOCATION, "repositoryName": found["name"], "jobName": job}
        given = [{"key": key, "value": value} for key, value in tags.items()]
        params = {"selector": where, "runConfigData": {}, "executionMetadata": {"tags": given}}
        found = self.ask(LAUNCH, params=params)["launchRun"]
        assert found["__typename"] == "LaunchRunSuccess", found
        run_id: str = found["run"]["runId"]
        return run_id

    def backfill(self, asset: str, windows: list[str]) -> str:
        """Launch a backfill as the UI does; returns its id."""
        params = {"assetSelection": [{"path": asset.split("/")}], "partitionNames": windows}
        found = self.ask(BACKFILL, params=params)["launchPartitionBackfill"]
        assert found["__typename"] == "LaunchBackfillSuccess", found
        backfill_id: str = found["backfillId"]
        return backfill_id

    def worker_of(self, run_id: str) -> int | None:
        """The process that executes the run, by what the launcher wrote down."""
        for event in self.ask(LOGS, id=run_id)["logsForRun"]["events"]:
            _, found, rest = event.get("message", "").partition("(pid: ")
            if found and "Started process for run" in event["message"]:
                return int(rest.partition(")")[0])
        return None

    def claimed(self) -> set[str]:
        """Runs that hold a place in a pool, or wait for one."""
        limits = self.ask(SLOTS)["instance"]["concurrencyLimits"]
        steps = [step for limit in limits for step in (*limit["claimedSlots"], *limit["pendingSteps"])]
        return {step["runId"] for step in steps}

    def require_end(self, run_id: str, *, seconds: float) -> str:
        """The state in which the run ended; fails where it does not end."""
        wait_for(
            f"the end of run {run_id}",
            lambda: self.status(run_id) in FINISHED,
            seconds=seconds,
            by=self.running,
        )
        return self.status(run_id)


@contextmanager
def running_dev(folder: Path, *arguments: str, **variables: str) -> Iterator[Dagster]:
    """`rally-pipeline dev` until it is up; whatever is left of it at the end is killed."""
    port = free_port()
    with cleared(Home(folder, variables)) as home:
        running = home.begin("dev", "--port", str(port), *arguments)
        wait_for("dev", lambda: "Dagster is up" in running.said(), seconds=UP_SECONDS, by=running)
        yield Dagster(home, port, running)


@dataclass
class Services:
    """Code server, webserver and daemon of one deployment."""

    home: Home
    folder: Path
    dagster_home: Path
    code_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    running: dict[str, Running] = field(default_factory=dict)

    def start(self, name: str) -> Running:
        """Start one of the three."""
        match name:
            case "code-server":
                words = ["dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(self.code_port)]
                words += ["-m", "rally_pipeline.definitions", "--location-name", LOCATION]
            case "webserver":
                words = ["dagster-webserver", "-h", "127.0.0.1", "-p", str(self.port), "-w", "workspace.yaml"]
            case _:
                words = ["dagster-daemon", "run", "-w", "workspace.yaml"]
        self.running[name] = self.home.start(*words, cwd=self.folder, DAGSTER_HOME=str(self.dagster_home))
        return self.running[name]

    def kill(self, name: str) -> None:
        """SIGKILL to the one process, as the kernel does where memory runs out; what it started may live on."""
        process = self.running[name].process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def dagster(self) -> Dagster:
        """The webserver, to be asked."""
        return Dagster(self.home, self.port, self.running["webserver"])


@contextmanager
def running_services(home: Home, folder: Path) -> Iterator[Services]:
    """The deployment of `deploy/README.md` on free ports, with the shipped `dagster.yaml`."""
    dagster_home = home.path / "dagster"
    dagster_home.mkdir(parents=True)
    shutil.copyfile(ROOT / "dagster.yaml", dagster_home / "dagster.yaml")
    services = Services(home, folder, dagster_home)
    server = f"host: 127.0.0.1, port: {services.code_port}, location_name: {LOCATION}"
    (folder / "workspace.yaml").write_text(f"load_from:\n  - grpc_server: {{{server}}}\n")
    migrated = home.start("dagster", "instance", "migrate", DAGSTER_HOME=str(dagster_home)).wait()
    assert migrated.code == 0, str(migrated)
    code = services.start("code-server")
    wait_for("the code server", lambda: is_listening(services.code_port), seconds=UP_SECONDS, by=code)
    services.start("webserver")
    wait_for("the code location", services.dagster.is_up, seconds=UP_SECONDS, by=services.dagster.running)
    services.start("daemon")
    yield services
