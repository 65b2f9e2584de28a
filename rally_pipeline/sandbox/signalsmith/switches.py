"""What the documentation of SignalSmith leaves open, as switches; the defaults are the likeliest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from rally_pipeline.sandbox.api import ControlError

from .cron import Fold, Gap

Order = Literal["newest", "oldest", "shuffled"]
WriteAnswer = Literal["sync", "status"]
Busy = Literal["queue", "conflict", "reject"]


@dataclass(frozen=True)
class Switches:
    """Undocumented behaviour. Seconds are sandbox seconds.

    | switch | meaning |
    | --- | --- |
    | `busy` | a trigger while a run is under way: queued behind it, 409, or 400 |
    | `trigger_paused`, `trigger_draft`, `trigger_error` | status code of a trigger in that sync status |
    | `created_status` | status after create; None: `active` with a schedule, else `draft` |
    | `write_answer` | POST and PUT answer the sync, or only `{"status": …}` |
    | `paginate`, `run_cap` | object pagination on every list; newest runs that a list shows |
    | `run_order` | order of the run list |
    | `list_lag_seconds` | how long a new run is missing from lists and from its sync |
    | `scheduler` | whether active syncs run by themselves |
    | `scheduler_delay_seconds` | how late the scheduler starts a run |
    | `dst_gap`, `dst_fold` | local times that do not exist, or come twice |
    | `scheduled_by` | `triggered_by` of a scheduled run |
    | `extra_fields` | answers carry fields and values nobody has documented |
    | `sparse` | optional fields that are null are left out |
    | `timezone_key` | where the settings keep the zone; dots nest; empty: nowhere |
    | `retention_seconds` | finished runs older than this are gone |
    | `queue_seconds`, `run_seconds`, `rows`, `failed_rows` | what a run is like unless told otherwise |
    | `error_after_failure` | a failed run puts its sync into status `error` |
    | `bare_error` | errors carry HTML instead of `{"error": …}` |
    """

    busy: Busy = "queue"
    trigger_paused: int = 201
    trigger_draft: int = 400
    trigger_error: int = 201
    created_status: str | None = None
    write_answer: WriteAnswer = "sync"
    paginate: bool = False
    run_cap: int | None = None
    run_order: Order = "newest"
    list_lag_seconds: float = 0.0
    scheduler: bool = True
    scheduler_delay_seconds: float = 0.0
    dst_gap: Gap = "end"
    dst_fold: Fold = "second"
    scheduled_by: str | None = None
    extra_fields: bool = False
    sparse: bool = False
    timezone_key: str = "timezone"
    retention_seconds: float | None = None
    queue_seconds: float = 2.0
    run_seconds: float = 30.0
    rows: int = 500
    failed_rows: int = 0
    error_after_failure: bool = False
    bare_error: bool = False

    def changed(self, values: Mapping[str, Any]) -> Switches:
        """A copy with some switches set. Raises `ControlError` for an unknown one."""
        known = {field.name for field in fields(self)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ControlError(f"no switch {', '.join(unknown)}: choose from {', '.join(sorted(known))}")
        return replace(self, **values)
