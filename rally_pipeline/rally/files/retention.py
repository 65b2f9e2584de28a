"""Names of exports, and which of them are kept."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from rally_pipeline.rally.entities import Entity

_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(rf"({'|'.join(Entity)})_(\d{{8}}T\d{{6}}Z)\.(csv|xlsx|parquet)", re.ASCII)


def export_name(entity: Entity, taken_at: datetime, suffix: str) -> str:
    """Such as `contacts_20260302T080000Z.csv`; names in UTC sort by time."""
    return f"{entity.value}_{taken_at.astimezone(UTC):{_STAMP}}.{suffix}"


def remove_old_exports(newest: Path, before: datetime) -> int:
    """Remove exports of the same entity and format taken before a moment, other files never; returns how
    many."""
    made = _NAME.fullmatch(newest.name)
    if made is None:
        raise ValueError(f"{newest.name} is not the name of an export")
    removed = 0
    for path in newest.parent.iterdir():
        found = _NAME.fullmatch(path.name)
        if found is None or path == newest or (found[1], found[3]) != (made[1], made[3]):
            continue
        if datetime.strptime(found[2], _STAMP).replace(tzinfo=UTC) < before and not path.is_symlink():
            path.unlink(missing_ok=True)
            removed += 1
    return removed
