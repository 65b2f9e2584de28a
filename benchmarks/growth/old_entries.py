"""A feed log that has been kept for long: entries written by the database itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, text

_COLUMNS = "id, changed_at, entity_type, entity_id, action, changed_by, recorded_at"
_SQLITE = f"""
INSERT INTO rally_changes ({_COLUMNS})
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
SELECT -n, strftime('%Y-%m-%dT%H:%M:%S.000000Z', '2024-01-01', '+' || n || ' seconds'), 'contact',
       printf('%032x', n * 7919), 'updated', 'maya@example.org', '2025-06-01T00:00:00.000000Z'
FROM numbers
"""
_POSTGRESQL = f"""
INSERT INTO rally_changes ({_COLUMNS})
SELECT -n, timestamptz '2024-01-01 00:00:00Z' + n * interval '1 second', 'contact',
       lpad(to_hex(n::bigint * 7919), 32, '0'), 'updated', 'maya@example.org', timestamptz '2025-06-01 00:00:00Z'
FROM generate_series(1, :count) AS n
"""


def write(*, database: str, count: int) -> dict[str, Any]:
    """`count` entries of years ago, a second apart, with ids that the source will never give again."""
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.execute(
            text(_SQLITE if engine.dialect.name == "sqlite" else _POSTGRESQL), {"count": count}
        )
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE rally_changes"))
    engine.dispose()
    return {"entries": count}
