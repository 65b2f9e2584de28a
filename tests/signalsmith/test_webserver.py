"""Dagster's own webserver with a workspace of 100 syncs and every trap: all schedules with their next ticks, and a
picture of the graph."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rally_pipeline.orchestration.home import WORKSPACE, prepare_home
from tests.e2e.browser import CHROMIUM, open_page
from tests.signalsmith.bench import URL, Bench

SCHEDULES = """
{ schedulesOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "rally_pipeline"}) {
    __typename
    ... on PythonError { message }
    ... on Schedules { results { name cronSchedule executionTimezone futureTicks(limit: 5) { results { timestamp } } } }
} }
"""
ASSETS = """
{ repositoryOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "rally_pipeline"}) {
    ... on Repository { assetNodes { assetKey { path } groupName jobNames hasMaterializePermission } }
} }
"""


class Webserver:
    """A running `dagster-webserver`."""

    def __init__(self, port: int, expected: set[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.expected = expected

    def ask(self, query: str) -> Any:
        """The data of a GraphQL answer, which must be a 200 without errors."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        return content["data"]


@pytest.fixture(scope="module")
def webserver() -> Iterator[Webserver]:
    with tempfile.TemporaryDirectory(prefix="rally-web-") as folder:
        bench = Bench(Path(folder), syncs=100, hostile=True, timezone="Europe/Berlin")
        result = bench.refresh()
        bench.close()
        expected = {
            f"signalsmith_{entry.slug}_schedule"
            for entry in result.catalog.entries
            if f"{entry.name or 'sync without a name'} ({entry.slug})" not in dict(result.unscheduled)
        }
        dagster_home = bench.home / "dagster"
        prepare_home(dagster_home)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {**os.environ, **bench.sandbox.environment(URL)}
        environment |= {"RALLY_PIPELINE_HOME": str(bench.home), "DAGSTER_HOME": str(dagster_home)}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        command = [
            sys.executable,
            "-m",
            "dagster_webserver",
            "-w",
            str(WORKSPACE),
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
        ]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield _wait_for(Webserver(port, expected), process)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_for(server: Webserver, process: subprocess.Popen[bytes]) -> Webserver:
    deadline = time.monotonic() + 180
    while True:
        assert process.poll() is None, "the webserver ended"
        try:
            with urllib.request.urlopen(f"{server.url}/server_info", timeout=5):
                return server
        except OSError:
            assert time.monotonic() < deadline, "the webserver did not come up"
            time.sleep(0.3)


def test_all_schedules_are_listed_with_their_next_ticks(webserver: Webserver) -> None:
    found = webserver.ask(SCHEDULES)["schedulesOrError"]
    assert found["__typename"] == "Schedules", found
    ours = {each["name"]: each for each in found["results"] if each["name"].startswith("signalsmith_")}
    assert set(ours) == webserver.expected
    assert len(ours) > 100
    now = time.time()
    for name, each in ours.items():
        ticks = [tick["timestamp"] for tick in each["futureTicks"]["results"]]
        assert len(ticks) == 5, name
        assert ticks == sorted(ticks), name
        assert ticks[0] >= now - 120, name
        assert each["executionTimezone"] == "Europe/Berlin"


def test_every_sync_is_an_asset_with_a_job_of_its_own(webserver: Webserver) -> None:
    nodes = webserver.ask(ASSETS)["repositoryOrError"]["assetNodes"]
    ours = {
        node["assetKey"]["path"][1]: node for node in nodes if node["assetKey"]["path"][0] == "signalsmith"
    }
    assert len(ours) == 143
    assert {node["groupName"] for node in ours.values()} == {"signalsmith"}
    assert all(f"signalsmith_{slug}" in node["jobNames"] for slug, node in ours.items())


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_hundred_syncs_are_shown(webserver: Webserver, tmp_path: Path) -> None:
    target = Path(os.environ.get("RALLY_PICTURES", tmp_path))
    group = f"{webserver.url}/locations/rally_pipeline/asset-groups/signalsmith"
    with open_page() as page:
        page.show(f"{webserver.url}/automation", until=shows("Every 15 minutes"), height=1600, seconds=120)
        if "Skip" in page.text():
            page.click("Skip")  # an invitation that a fresh browser gets
        page.wait(f"!{shows('Join the Dagster community')}")
        page.picture(target / "signalsmith-schedules.png")
        page.evaluate("localStorage.setItem('large-screen-nav-open', 'false')")
        # tall enough for every row: the page draws only what is visible
        page.show(f"{group}/list", until=shows("sync_number_100"), width=1400, height=9500, seconds=120)
        page.wait(f"!{shows('Loading')}")
        listed = page.text()
        page.picture(target / "signalsmith-100-syncs.png")
    assert [number for number in range(1, 101) if f"sync_number_{number}\n" not in listed] == []
    assert (target / "signalsmith-100-syncs.png").stat().st_size > 50_000


def shows(text: str) -> str:
    """A JavaScript expression that holds when the page shows the text."""
    return f"document.body.innerText.includes({json.dumps(text)})"
