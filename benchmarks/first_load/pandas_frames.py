"""pandas: all pages into one frame, and `to_sql`, which appends to a table or replaces it but cannot merge."""

from __future__ import annotations

from typing import Any

import orjson
import pandas
import sqlalchemy

from benchmarks.first_load.pages import list_pages
from benchmarks.source.contacts import FIELDS


def load(*, url: str, database: str, page_size: int, stage: str) -> dict[str, Any]:
    """Replace the table, one `INSERT` with many parameter sets for each 10,000 rows."""
    return _replace(url, database, page_size, method=None, chunk=10_000)


def load_multi(*, url: str, database: str, page_size: int, stage: str) -> dict[str, Any]:
    """Replace the table with `method="multi"`: many rows in one statement, as many as the database takes."""
    return _replace(url, database, page_size, method="multi", chunk=32_000 // len(FIELDS))


def _replace(url: str, database: str, page_size: int, *, method: Any, chunk: int) -> dict[str, Any]:
    rows = [row for body in list_pages(url, page_size) for row in orjson.loads(body)]
    frame = pandas.DataFrame(rows).rename(columns={"leadScore": "lead_score"})
    engine = sqlalchemy.create_engine(database)
    frame.to_sql("contacts", engine, if_exists="replace", index=False, method=method, chunksize=chunk)
    engine.dispose()
    return {"received": len(rows)}
