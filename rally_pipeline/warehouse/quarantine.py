"""Records that could not be stored, kept with their reason until they are replayed or released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from rally_pipeline.warehouse import values
from rally_pipeline.warehouse.tables import quarantine

MAX_RAW_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class QuarantinedRecord:
    """One record: where it came from, why it could not be stored, its raw text, and how often it was tried."""

    source: str
    key: str
    reason: str
    raw: str
    first_seen: datetime
    last_seen: datetime
    attempts: int


def put(
    connection: sa.Connection, source: str, key: str, reason: str, raw: bytes | str, now: datetime
) -> None:
    """Keep the record; the same source and key again counts one attempt more and keeps the newest raw text.

    Bytes that are not UTF-8 are kept as `\\xNN`. Raw texts above 4,000,000 characters are cut, and the reason
    says so: such a record is replayed by reading the source again.
    """
    text = raw.decode(errors="backslashreplace") if isinstance(raw, bytes) else raw
    if len(text) > MAX_RAW_CHARACTERS:
        reason = f"{reason} (raw text cut: {len(text):,} characters)"
        text = text[:MAX_RAW_CHARACTERS]
    fields = {"reason": reason, "raw": text, "last_seen": now}
    matched = connection.execute(
        quarantine.update().where(_is(source, key)).values(**fields, attempts=quarantine.c.attempts + 1)
    ).rowcount
    if not matched:
        connection.execute(
            quarantine.insert().values(source=source, key=key, **fields, first_seen=now, attempts=1)
        )


def release(connection: sa.Connection, source: str, key: str) -> bool:
    """Forget the record (it was stored, or is of no interest); return whether it was there."""
    return connection.execute(quarantine.delete().where(_is(source, key))).rowcount == 1


def read(connection: sa.Connection, source: str | None, limit: int) -> Sequence[QuarantinedRecord]:
    """The oldest `limit` records of a source (None: of all)."""
    query = sa.select(quarantine).order_by(quarantine.c.first_seen, quarantine.c.source, quarantine.c.key)
    if source is not None:
        query = query.where(quarantine.c.source == source)
    return [QuarantinedRecord(**row._mapping) for row in connection.execute(query.limit(limit))]


def _is(source: str, key: str) -> sa.ColumnElement[bool]:
    source, key = values.clean_text(source), values.clean_text(key)
    return sa.and_(quarantine.c.source == source, quarantine.c.key == key)
