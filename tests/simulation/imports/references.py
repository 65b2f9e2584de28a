"""Reference imports: a file of several uploads, under several habits of the remote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rally_pipeline.rally.entities import Entity
from tests.simulation.imports.desk import Killed, Process, Tenant
from tests.simulation.imports.files import ImportFile, key_of, make_file
from tests.simulation.script import Passage, Reference
from tests.simulation.storage import quick_storage


def _reference(entity: Entity, rows: int = 5, **switches: Any) -> Reference:
    """A file with a repeated row and a refused one, in uploads of two."""
    made = {"seed": 3, "entity": entity.value, "rows": rows, "repeated": 1, "bad": 1, "known": 0}

    def live(folder: Path, crashes: Sequence[int]) -> Passage:
        with quick_storage(0):
            tenant = Tenant(folder, 1, max_rows=2, **switches)
            return _passage(tenant, make_file(made, 1, folder), crashes)

    return live


def _passage(tenant: Tenant, file: ImportFile, crashes: Sequence[int]) -> Passage:
    lived: list[int] = []
    names: tuple[str, ...] = ()
    for crash in (*crashes, 0):
        process = Process(tenant, crash=crash)
        try:
            with closing(process):
                process.run(file)
        except Killed:
            pass  # the next process begins from the beginning
        lived.append(len(process.steps))
        names = names or tuple(process.steps)
    sent = tenant.uploads()
    with closing(Process(tenant)) as last:
        report = last.run(file)
        outcomes = last.outcomes(report.sha256)
    differences = []
    if tenant.uploads() != sent:
        differences.append("one more run sent something")
    if report.imported + report.duplicate + report.refused + report.unknown != len(file.rows):
        differences.append(f"the counts do not add up: {report.counts()}")
    if report.unknown:
        differences.append(f"{report.unknown} rows are unknown")
    imported = Counter(
        key_of(file.entity, row) for number, row in enumerate(file.rows, 2) if number not in outcomes
    )
    there = tenant.count(file.entity, foreign=True)
    if there != imported:
        differences.append(f"Rally has {dict(there)}, imported were {dict(imported)}")
    return Passage(tuple(lived), names, tuple(differences))


REFERENCES: dict[str, Reference] = {
    "contacts": _reference(Entity.CONTACTS),
    "activities": _reference(Entity.ACTIVITIES, lost="half", lost_uploads=[2]),
    "deals-lost": _reference(Entity.DEALS, lost="after", lost_uploads=[1, 3], lost_status=503),
    "lagging-list": _reference(
        Entity.ACTIVITIES, 3, lost="before", lost_uploads=[1], lag_seconds=20, max_limit=5
    ),
}
"""By name; each is the import of one file."""
