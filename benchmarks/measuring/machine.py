"""What the figures were measured on: cores, memory, load and the versions of everything that took part."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

OURS = ("rally-pipeline", "dagster", "requests", "urllib3", "msgspec", "SQLAlchemy", "psycopg")


@dataclass(frozen=True)
class Machine:
    """This machine, now."""

    cores: int
    processor: str
    memory_gb: float
    load: tuple[float, float, float]
    """Average number of running processes over 1, 5 and 15 minutes."""
    versions: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def look(packages: Iterable[str] = ()) -> Machine:
        """Read it from the system; `packages` are named beside this package's own dependencies."""
        versions = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
        for package in (*OURS, *packages):
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        return Machine(
            cores=len(os.sched_getaffinity(0)),
            processor=_processor(),
            memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            load=os.getloadavg(),
            versions=versions,
        )

    def line(self) -> str:
        """For a person."""
        load = " ".join(f"{value:.2f}" for value in self.load)
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.cores} cores ({self.processor}), {self.memory_gb:.0f} GiB, load average {load}\n{versions}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
