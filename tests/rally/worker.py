"""A sync as a process of its own: what tests kill, run side by side, and weigh.

Usage: python -m tests.rally.worker URL VERB…, with verbs extract, changes, settle. Prints one JSON line at the end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rally_pipeline.rally.client import connect
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.mirror import RallyMirror
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.settings import load_settings
from rally_pipeline.warehouse import Warehouse


def peak_kb() -> int:
    """Peak resident memory of this program alone; `ru_maxrss` would count the parent's at the time of the fork."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main(url: str, verbs: list[str]) -> None:
    settings = load_settings()
    client = connect(settings)
    entities = [Entity(name) for name in verbs if name in set(Entity)] or list(Entity)
    with Warehouse.open(url) as warehouse:
        mirror = RallyMirror(warehouse, client, MirrorPolicy.of(settings), patience_seconds=120)
        mirror.prepare()
        before = peak_kb()
        if "extract" in verbs:
            for entity in entities:
                mirror.extract(entity)
        if "changes" in verbs:
            mirror.read_changes()
        if "settle" in verbs:
            for entity in entities:
                mirror.settle(entity)
    after = peak_kb()
    usage = client.http.usage
    print(  # noqa: T201
        json.dumps(
            {
                "peak_kb": after,
                "imports_kb": before,
                "requests": usage.requests,
                "throttled": usage.throttled,
                "waited": usage.waited_seconds,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
