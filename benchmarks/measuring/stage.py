"""The stage on which a contestant works: `python -m benchmarks.measuring.stage MODULE:FUNCTION ARGUMENTS`."""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path


def peak_mb() -> float:
    """Peak resident memory of this program alone; `ru_maxrss` would count the parent's at the time of the fork."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def cpu_seconds() -> float:
    """Of this process and its finished children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main(entry: str, arguments: str) -> None:
    """Import, note where things stand, work, and print the difference as the last line."""
    module, _, function = entry.partition(":")
    work = getattr(importlib.import_module(module), function)
    keywords = json.loads(arguments)
    imports_mb, cpu, began = peak_mb(), cpu_seconds(), time.perf_counter()
    facts = work(**keywords)
    wall = time.perf_counter() - began
    sample = {
        "wall": wall,
        "cpu": cpu_seconds() - cpu,
        "peak_mb": peak_mb(),
        "imports_mb": imports_mb,
        "facts": facts or {},
    }
    sys.stdout.write(f"\n{json.dumps(sample)}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
