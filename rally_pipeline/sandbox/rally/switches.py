"""Everything about Rally that the documentation leaves open, as switches; the defaults are the plainest
reading of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from rally_pipeline.sandbox.api import ControlError

Effect = Literal["off", "silent", "touch", "entry"]
"""A side effect on another record: none; its value changes; also its `updatedAt`; also a feed entry."""
Digits = Literal[0, 3, 7]
Order = Literal["id", "createdAt", "updatedAt", "-id", "-createdAt", "-updatedAt", "random"]


class RallySwitches(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All switches with their defaults. Shares are probabilities from 0 to 1; times are sandbox seconds."""

    # lists: shape and paging
    envelope: Literal["bare", "data", "items", "results"] = "bare"
    total_key: Literal["none", "total", "totalCount"] = "none"
    total_error: int = 0  # added to the total: a count that lies
    next_link: Literal["none", "right", "self", "back", "foreign"] = "none"  # a link in the envelope
    default_limit: int = 50
    max_limit: int = 1000
    over_limit: Literal["cap", "refuse"] = "cap"
    list_order: Order = "createdAt"
    list_ties: Literal["stable", "unstable"] = "stable"  # order of equal times: by id, or new in each answer
    overfill: int = 0  # rows more than asked for
    ignore_offset: bool = False
    empty_page_every: int = 0  # each n-th page beyond the first one is empty; 0: never
    repeat_page_every: int = 0  # each n-th page beyond the first one is the page before again; 0: never
    duplicate_row_share: float = 0.0
    updated_since: Literal["exclusive", "inclusive"] = "inclusive"
    updated_since_digits: Digits = 0  # precision of the comparison
    updated_since_counts_creates: bool = True

    # stale answers
    replica_lag_seconds: float = 0.0
    replica_share: float = 1.0  # of the requests that a replica answers
    replica_serves: list[Literal["lists", "records", "feed"]] = msgspec.field(
        default_factory=lambda: ["lists", "records", "feed"]
    )

    # how records are written
    nulls: Literal["present", "absent"] = "present"
    decimals: Literal["number", "string"] = "number"
    record_digits: Digits = 0
    contact_details: bool = False  # whether contacts carry address, LinkedIn and Twitter
    custom_fields: Literal["none", "flat", "object"] = "none"
    extra_fields: dict[str, Any] = {}
    missing_fields: list[str] = []

    # single records and writes
    gone_status: Literal[404, 410] = 404
    create_status: Literal[200, 201] = 201
    delete_status: Literal[200, 204] = 204
    put_mode: Literal["replace", "merge"] = "replace"
    upsert_mode: Literal["replace", "merge"] = "merge"
    upsert_without_key: Literal["refuse", "create"] = "refuse"
    email_match: Literal["ignore_case", "exact"] = "ignore_case"
    unique_emails: bool = True
    check_links: bool = True  # a link to a record that is not there is refused
    bulk_mode: Literal["per_row", "all_or_nothing"] = "per_row"
    bulk_max: int = 100
    deals_bulk_max: int | None = None
    frozen_updated_at_share: float = 0.0  # of the updates that leave `updatedAt` as it was
    cascade: Effect = "off"  # links to a deleted company, contact or deal are cleared
    rename_copies: Effect = "off"  # names copied into deals follow a rename
    last_activity: Effect = "off"  # a new activity sets `lastActivityAt` of its deal
    bant_effect: Effect = "off"  # a BANT change touches its deal
    error_shape: Literal["problem", "message", "error", "errors", "text", "html", "empty"] = "problem"

    # change feed
    feed_default_limit: int = 1000
    feed_max_limit: int = 1000
    feed_over_limit: Literal["cap", "refuse"] = "cap"
    feed_since: Literal["exclusive", "inclusive"] = "exclusive"
    feed_digits: Digits = 0
    feed_compare_digits: Digits = 0
    feed_ties: Literal["commit", "shuffled", "reversed"] = "commit"
    feed_page_order: Literal["ascending", "shuffled"] = "ascending"
    feed_duplicate_share: float = 0.0
    feed_naive_since: Literal["utc", "refuse", "misread"] = "utc"  # misread: taken as UTC+02:00
    feed_offset_since: Literal["accept", "refuse", "misread"] = "accept"  # misread: the offset is ignored
    late_seconds: float = 0.0  # an entry becomes visible up to so much after its `changedAt`
    late_share: float = 1.0  # of the entries that are late
    feed_delay_seconds: float = 0.0  # every entry becomes visible so much after its `changedAt`
    ahead_seconds: float = 0.0  # `changedAt` lies up to so much in the future
    ahead_share: float = 1.0
    feed_ids: Literal["commit", "change"] = "commit"  # ids follow visibility or `changedAt`
    feed_id_gap: int = 0  # greatest number of ids left out between two entries
    retention_seconds: float | None = None
    retention_answer: Literal["silent", "error"] = "silent"
    merge_entries: bool = False  # one entry per record: the newest
    no_entry_share: float = 0.0  # of the changes that never get an entry
    unknown_entry_share: float = 0.0  # of the entries followed by one of an undocumented action or type
    unknown_entities: Literal["refuse", "ignore"] = "refuse"
    changed_by: Literal["mixed", "email", "key", "null"] = "mixed"  # mixed: the key's name for API writes
    feed_scope: Literal["read", "write", "admin"] = "read"  # what a key needs to read the feed

    # rate limit
    limit_per_minute: int | None = 1000  # requests in a window; None: no limit and no headers
    rate_window_seconds: float = 60.0
    rate_aligned: bool = True
    rate_headers: bool = True
    rate_reset_unit: Literal["seconds", "milliseconds", "delta"] = "seconds"
    rate_retry_after: Literal["none", "seconds", "date"] = "none"
    foreign_per_second: float = 0.0  # requests of other integrations of the tenant

    # life of its own
    changes_per_second: float = 0.0
    life_weights: dict[Literal["insert", "update", "delete", "revive", "hostile"], float] = msgspec.field(
        default_factory=lambda: {"insert": 3.0, "update": 5.0, "delete": 2.0}
    )


def changed_switches(present: RallySwitches, changes: Mapping[str, Any]) -> RallySwitches:
    """The switches with `changes` applied. Raises `ControlError` for an unknown name or a value that does
    not fit.
    """
    try:
        switches = msgspec.convert({**msgspec.structs.asdict(present), **changes}, RallySwitches)
    except msgspec.ValidationError as error:
        raise ControlError(f"Rally switches: {error}") from None
    for name, value in msgspec.structs.asdict(switches).items():
        if name.endswith("_share") and not 0.0 <= value <= 1.0:
            raise ControlError(f"Rally switch {name} is a share between 0 and 1, not {value}")
        if name.endswith(("_seconds", "_every", "_per_second")) and value is not None and value < 0:
            raise ControlError(f"Rally switch {name} cannot be negative")
    return switches
