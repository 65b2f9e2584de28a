"""The rounds of the load benchmark, and its goals."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring.contestant import WrongOutcome, run_contestant
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.options import parser_of, tell
from benchmarks.measuring.report import Goal, Report, Series
from tests.signalsmith.bench import URL, Bench

_HERE = "benchmarks.code_location.contestants"
_CASE = "import and definitions"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options."""
    made = parser_of(doc, rounds=5)
    made.add_argument("--syncs", type=int, default=1_000)
    return made


def measure(options: argparse.Namespace) -> Report:
    """All rounds."""
    report = Report(
        "code_location",
        {"syncs": options.syncs, "rounds": options.rounds},
        Machine.look(("dagster-webserver",)),
        shown=("assets", "schedules"),
    )
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        bare, full = Path(folder) / "bare", Path(folder) / "full"
        full.mkdir()
        environments = {
            "import dagster": (f"{_HERE}:import_dagster", {}),
            "bare": (f"{_HERE}:load_location", _bare(bare)),
            f"{options.syncs:,} syncs": (f"{_HERE}:load_location", _with_syncs(full, options.syncs)),
        }
        series = {name: Series(_CASE, name) for name in environments}
        for _ in range(options.rounds):
            for name, (entry, environment) in environments.items():
                sample = run_contestant(entry, {}, limit=120, environment=environment)
                series[name].samples.append(sample)
                tell(f"{name}: {sample.wall:.2f} s, CPU {sample.cpu:.2f} s, {sample.facts}")
    report.series += series.values()
    loaded = series[f"{options.syncs:,} syncs"].samples[-1].facts
    if loaded["assets"] < options.syncs:
        raise WrongOutcome(f"not every sync became an asset: {loaded}")
    report.goals += _goals(report, options)
    return report


def _bare(home: Path) -> dict[str, str]:
    """Rally and Sell configured, SignalSmith not."""
    return {
        "RALLY_PIPELINE_HOME": str(home),
        "RALLY_API_URL": "http://127.0.0.1:9/api/v1",
        "RALLY_API_KEY": "rk_benchmark",
        "SELL_ACCESS_TOKEN": "benchmark",
        "SELL_DEVICE_UUID": "5a6e8f7e-52a7-4f1e-9b1c-6f1d8a3f2b10",
    }


def _with_syncs(folder: Path, syncs: int) -> dict[str, str]:
    """The same with a catalog file of a workspace that has so many syncs."""
    bench = Bench(folder, syncs=syncs)
    bench.refresh()
    bench.close()
    made = _bare(bench.home) | bench.sandbox.environment(URL)
    return made | {"SYNCS_DIR": str(bench.home / "syncs")}


def _goals(report: Report, options: argparse.Namespace) -> Iterator[Goal]:
    dagster = report.find(_CASE, "import dagster")
    assert dagster is not None
    for name, bound in (("bare", 0.4), (f"{options.syncs:,} syncs", 1.5)):
        one = report.find(_CASE, name)
        assert one is not None
        more, cpu = one.wall - dagster.wall, one.cpu - dagster.cpu
        yield Goal(f"{_CASE}: {name} - import dagster", more, bound, at_most=True, unit="s", cpu=cpu)
