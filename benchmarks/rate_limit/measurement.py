"""Whole windows of a tenant's budget, counted in the server's own log."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measuring.contestant import Sample
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.options import chosen, names, parser_of, tell
from benchmarks.measuring.report import Goal, Report, Series
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.request_log import LogEntry
from rally_pipeline.sandbox.server import SandboxServer

_ROOT = Path(__file__).parents[2]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options."""
    made = parser_of(doc, rounds=1)
    made.add_argument("--processes", default="1,3,6")
    made.add_argument("--limit", type=int, default=1_000, help="requests in a window")
    made.add_argument("--window", type=float, default=10.0, help="seconds of a window")
    made.add_argument("--windows", type=int, default=3, help="windows that are counted")
    made.add_argument("--only", default="ours,plain")
    return made


def measure(options: argparse.Namespace) -> Report:
    """Each number of processes, by each way."""
    settings = {name: getattr(options, name) for name in ("limit", "window", "windows", "rounds")}
    report = Report("rate_limit", settings, Machine.look(), shown=("share", "refused", "fairness"))
    for processes in map(int, names(options.processes)):
        for way in chosen(options.only, ("ours", "plain")):
            series = Series(_case(processes), way)
            for _ in range(options.rounds):
                series.samples.append(_use(way, processes, options))
                tell(f"{series.case}: {way}: {series.samples[-1].facts}")
            report.series.append(series)
        report.goals += _goals(report, _case(processes))
    return report


def _case(processes: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}"


def _use(way: str, processes: int, options: argparse.Namespace) -> Sample:
    """Let the processes ask for all windows, then end them and read the server's log."""
    sandbox = Sandbox(
        clock=SandboxClock.running(),
        records=40,
        limit_per_minute=options.limit,
        rally={"rate_window_seconds": options.window},
        apis=["rally"],
    )
    with SandboxServer(sandbox) as server:
        environment = server.environment()
        place = (environment["RALLY_API_URL"], environment["RALLY_API_KEY"])
        workers = [_start(way, *place, number) for number in range(processes)]
        try:
            _sleep_until_window(options.window)
            first = time.time() // options.window
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write("go\n")
                worker.stdin.flush()
            time.sleep(max(0.0, (first + options.windows) * options.window - time.time()))
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
    counted = [
        entry
        for entry in sandbox.log
        if first <= entry.at.timestamp() // options.window < first + options.windows
    ]
    return _judge(counted, processes, options)


def _start(way: str, base_url: str, key: str, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.rate_limit.worker", way, base_url, key, str(number)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    assert worker.stdout is not None
    if worker.stdout.readline() != "ready\n":
        raise RuntimeError(f"worker {number} did not start")
    return worker


def _sleep_until_window(window: float) -> None:
    """Until just after the beginning of one: a start in its middle would measure luck."""
    time.sleep(window - time.time() % window + 0.05)


def _judge(counted: list[LogEntry], processes: int, options: argparse.Namespace) -> Sample:
    accepted = [entry for entry in counted if entry.status == 200]
    used = Counter(int(entry.at.timestamp() // options.window) for entry in accepted)
    shares = Counter(entry.query["offset"][0] for entry in accepted)
    parts = [shares.get(str(number), 0) for number in range(processes)]
    facts = {
        # The median window: a busy machine may keep the processes from using one of them up.
        "share": round(median(used.values()) / options.limit, 4),
        "least share": round(min(used.values()) / options.limit, 4),
        "refused": sum(entry.status == 429 for entry in counted),
        "fairness": round(sum(parts) ** 2 / (processes * sum(part**2 for part in parts)), 3),
        "parts": parts,
    }
    seconds = options.window * options.windows
    return Sample(seconds, 0.0, 0.0, 0.0, requests=len(counted), facts=facts)


def _goals(report: Report, case: str) -> Iterator[Goal]:
    ours = report.find(case, "ours")
    if ours is None:
        return
    yield Goal(
        f"{case}: share of the limit used",
        ours.median(lambda sample: sample.facts["share"]) * 100,
        97,
        at_most=False,
        unit="%",
    )
    refused = max(sample.facts["refused"] for sample in ours.samples)
    yield Goal(f"{case}: refused (429)", refused, 0, at_most=True, unit="")
