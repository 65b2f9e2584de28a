"""Plays one history of imports with the real importer, and counts every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from rally_pipeline.http.errors import ApiError
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.importer import ImportReport
from rally_pipeline.rally.files.tables import import_chunks, import_files, import_row_errors
from rally_pipeline.warehouse import WarehouseError
from tests.simulation.imports.desk import Killed, Process, Tenant
from tests.simulation.imports.files import ImportFile, key_of, make_file
from tests.simulation.imports.generator import DEFAULTS
from tests.simulation.script import Event, Script, Verdict, digest_of
from tests.simulation.storage import dump, quick_storage

FIRST_ROW = 2
"""Number of the row below the header."""


def play(script: Script, folder: Path) -> Verdict:
    """Play the events, bring every import to its end, and count."""
    with quick_storage(script.seed):
        return History(script, folder).play()


class History:
    """One tenant, one warehouse, some files."""

    def __init__(self, script: Script, folder: Path) -> None:
        self.script = script
        self.tenant = Tenant(folder, script.seed, **{**DEFAULTS, **script.settings})
        self.files: list[ImportFile] = []
        self.crashes = 0
        self.steps = 0
        self.problems: list[str] = []

    def play(self) -> Verdict:
        for event in self.script.events:
            self.happen(event)
        self.calm_down()
        tenant = self.tenant
        requests = (
            f"{entry.method} {entry.path} {entry.query} {entry.status}" for entry in tenant.sandbox.log
        )
        tables = (import_files, import_chunks, import_row_errors)
        lines = dump(tenant.folder / "warehouse.db", tables) if self.files else ()
        digest = digest_of(requests, lines)
        return Verdict(self.problems, digest, tenant.sandbox.log.total, self.crashes, self.steps)

    # ------------------------------------------------------------------ events

    def happen(self, event: Event) -> None:
        """Play one event."""
        handler: Callable[[Mapping[str, Any]], None] = getattr(self, f"on_{event.name}")
        handler(event.arguments)

    def on_file(self, arguments: Mapping[str, Any]) -> None:
        file = make_file(arguments, len(self.files) + 1, self.tenant.folder)
        for fields in file.known:
            self.tenant.create_foreign(file.entity, fields)
        self.files.append(file)

    def on_run(self, arguments: Mapping[str, Any]) -> None:
        """The first file that is not done is imported."""
        waiting = [file for file in self.files if not file.is_done]
        if waiting:
            self.work(waiting[0], crash=arguments.get("crash", 0))

    def on_again(self, _arguments: Mapping[str, Any]) -> None:
        """A file that was imported comes once more."""
        done = [file for file in self.files if file.is_done]
        if done:
            self.check_repetition(done[0])

    def on_lose(self, arguments: Mapping[str, Any]) -> None:
        self.tenant.switch(
            lost=arguments["applied"],
            lost_uploads=arguments["uploads"],
            lost_status=arguments["status"],
            late_seconds=float(arguments["late"]),
        )

    def on_wrong_counts(self, arguments: Mapping[str, Any]) -> None:
        self.tenant.switch(wrong_counts=arguments["how"])

    def on_fault(self, arguments: Mapping[str, Any]) -> None:
        chosen = {name: arguments[name] for name in ("path", "after", "times")}
        self.tenant.sandbox.faults.add(arguments["fault"], **chosen)

    def on_foreign(self, arguments: Mapping[str, Any]) -> None:
        """Other people's records; `alike`: named as rows of a file are, but not the same."""
        dice = Random(arguments["seed"])
        for number in range(arguments["count"]):
            subject = f"Other {arguments['seed']} {number}"
            names = [row["subject"] for file in self.files for row in file.rows if "subject" in row]
            if arguments["alike"] and names:
                subject = dice.choice(names)
            fields = {"activityType": "meeting", "subject": subject, "body": "of somebody else"}
            self.tenant.create_foreign(Entity.ACTIVITIES, fields)

    def on_outage(self, arguments: Mapping[str, Any]) -> None:
        """Rally is away while an import begins or goes on."""
        if arguments["refused"]:
            self.tenant.transport.refusing = True
        else:
            self.tenant.sandbox.faults.add("status_503", times=None, for_seconds=arguments["seconds"])
        self.on_run({})
        self.tenant.transport.refusing = False
        self.tenant.clock.advance(arguments["seconds"])

    def on_second(self, arguments: Mapping[str, Any]) -> None:
        """Within an import another process begins the same one; with a pause, after the first one's lease ran out."""
        waiting = [file for file in self.files if not file.is_done]
        if not waiting:
            return

        def begin_second() -> None:
            self.tenant.clock.advance(arguments["pause"])
            self.work(waiting[0])

        self.work(waiting[0], between=(arguments["at"], begin_second))

    def on_wait(self, arguments: Mapping[str, Any]) -> None:
        self.tenant.clock.advance(arguments["seconds"])

    # ------------------------------------------------------------------ processes

    def work(
        self, file: ImportFile, *, crash: int = 0, between: tuple[int, Callable[[], None]] | None = None
    ) -> ImportReport | None:
        """One process imports a file, until the end, or until it gives up or dies."""
        process = Process(self.tenant, crash=crash)
        process.between = between
        try:
            with closing(process):
                report = process.run(file)
                self.check_counts(file, report, process)
        except Killed:
            self.crashes += 1
        except (ApiError, WarehouseError):
            self.tenant.clock.advance(30)
        else:
            file.is_done = True
            return report
        finally:
            self.steps += len(process.steps)
        return None

    # ------------------------------------------------------------------ checks

    def check_counts(self, file: ImportFile, report: ImportReport, process: Process) -> None:
        """Every row is in exactly one of the four counts, and the list of problems says the same."""
        counted = report.imported + report.duplicate + report.refused + report.unknown
        if not counted == report.rows == len(file.rows):
            self.problems.append(
                f"{file.path.name}: {len(file.rows)} rows, {counted} counted of {report.rows}"
            )
        outcomes = process.outcomes(report.sha256)
        told = Counter(outcomes.values())
        numbers = {"duplicate": report.duplicate, "refused": report.refused, "unknown": report.unknown}
        if any(told[name] != number for name, number in numbers.items()):
            self.problems.append(f"{file.path.name}: counts {numbers}, but problems {dict(told)}")
        self.check_rows(file, outcomes)

    def check_rows(self, file: ImportFile, outcomes: Mapping[int, str]) -> None:
        """What is imported stands in Rally just as often as it was imported."""
        imported: Counter[tuple[str, ...]] = Counter()
        unknown: Counter[tuple[str, ...]] = Counter()
        for number, row in enumerate(file.rows, FIRST_ROW):
            key, outcome = key_of(file.entity, row), outcomes.get(number, "imported")
            if outcome in ("imported", "unknown"):
                (imported if outcome == "imported" else unknown)[key] += 1
        there = self.tenant.count(file.entity, foreign=file.entity is Entity.CONTACTS)
        for row in file.rows:
            key = key_of(file.entity, row)
            least, most = imported[key], imported[key] + unknown[key]
            if file.entity is Entity.CONTACTS:
                most = max(1, most)  # it may have been there before
            if not least <= there[key] <= most:
                self.problems.append(
                    f"{file.path.name}: {' '.join(key)!r} stands {there[key]} times, imported {least}, unknown"
                    f" {unknown[key]}"
                )

    def check_repetition(self, file: ImportFile) -> None:
        """The same file again: nothing is sent, nothing changes."""
        before = (self.tenant.uploads(), self.tenant.count(file.entity, foreign=True))
        report = self.work(file)
        if (
            report is not None
            and (self.tenant.uploads(), self.tenant.count(file.entity, foreign=True)) != before
        ):
            self.problems.append(f"{file.path.name} was sent again")

    def calm_down(self) -> None:
        """Faults stop: each import has to come to its end, and stays there."""
        tenant = self.tenant
        tenant.sandbox.faults.clear()
        tenant.switch(lost="none", lost_status=0, wrong_counts="none", late_seconds=0.0)
        tenant.clock.advance(100)
        for file in self.files:
            for _ in range(3):
                if file.is_done:
                    break
                self.work(file)
            if not file.is_done:
                self.problems.append(f"{file.path.name} was not finished")
                continue
            self.check_repetition(file)
