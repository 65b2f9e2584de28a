"""What the import/export page leaves open, as switches; the defaults are the plainest reading of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from rally_pipeline.sandbox.api import ControlError

EntityName = Literal["contacts", "companies", "deals", "activities"]
MEGABYTES = {"decimal": 10_000_000, "binary": 10_485_760}


class FileSwitches(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All switches with their defaults; times are sandbox seconds."""

    # what the texts say
    numbering: Literal["data", "file", "line", "index"] = "data"  # what the n of "Row n" counts
    errors_limit: int | None = None  # texts in one answer; None: one for each skipped row
    all_errors: bool = False  # several texts for a row with several problems

    # which rows are taken
    duplicates: list[EntityName] = msgspec.field(
        default_factory=lambda: ["contacts"]
    )  # where they are noticed
    link_match: Literal["exact", "ignore_case"] = "exact"
    same_names: Literal["first", "refuse"] = "first"  # a name that several records have
    atomic: bool = False  # one bad row, and nothing is imported
    trim: bool = True  # blanks around cells are cut off

    # the answer
    skipped_status: int = 200  # status when rows were skipped
    # half: only the first half of the rows is read, applied and counted
    wrong_counts: Literal["none", "total", "imported", "half"] = "none"

    # size and time
    limit: Literal["decimal", "binary"] = "binary"  # which 10 MB
    limit_counts: Literal["file", "request"] = "file"
    limit_bytes: int | None = None  # a smaller limit, as of a proxy
    rows_per_second: float = 400.0  # how fast an upload is worked through
    slow_seconds: float = 0.0  # the answer comes so much later

    # lost answers
    lost: Literal["none", "before", "half", "after"] = "none"  # how much is applied before the answer is lost
    lost_uploads: list[int] | None = None  # which uploads, counted from 1; None: all
    lost_status: int = 0  # 0: the connection is reset; else the status that comes instead
    late_seconds: float = 0.0  # after "before" or "half" the rest is applied so much later; 0: never

    # templates and exports
    byte_order_mark: bool = False
    line_end: Literal["\r\n", "\n"] = "\r\n"
    template_rows: int = 0  # sample rows in the template
    export_id: bool = False  # exports begin with a column `id`
    export_dates: Literal["instant", "date"] = "instant"
    workbook_formulas: bool = False  # texts that begin with = become formulas in the XLSX export


def changed_file_switches(present: FileSwitches, changes: Mapping[str, Any]) -> FileSwitches:
    """The switches with `changes` applied. Raises `ControlError` for what does not fit."""
    try:
        switches = msgspec.convert({**msgspec.structs.asdict(present), **changes}, FileSwitches)
    except msgspec.ValidationError as error:
        raise ControlError(f"Rally file switches: {error}") from None
    if switches.rows_per_second <= 0 or min(switches.slow_seconds, switches.late_seconds) < 0:
        raise ControlError("Rally file switches: rows_per_second must be positive, times cannot be negative")
    return switches
