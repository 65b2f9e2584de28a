"""Exports as Parquet, for machines: every column is text, blanks are null. Needs the optional package
pyarrow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rally_pipeline.rally.files.problems import FileError

_ROWS_AT_ONCE = 10_000


def require_parquet() -> None:
    """Find out whether Parquet can be written, before anything is asked of Rally.

    Raises:
        FileError: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise FileError("Parquet needs the package pyarrow: pip install pyarrow, or choose csv")


def write_parquet(path: Path, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows in groups; memory holds one group."""
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    schema = arrow.schema([(name, arrow.string()) for name in headers])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        remaining = iter(rows)
        while group := list(itertools.islice(remaining, _ROWS_AT_ONCE)):
            columns = [[cell or None for cell in column] for column in zip(*group, strict=True)]
            writer.write_table(arrow.table(columns, schema=schema))
