"""What a simulated Rally can be like, and how its mirror is bounded: the settings of a Rally script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rally_pipeline.settings import DeleteMode

DULL: dict[str, Any] = {
    # the account
    "records": {"contacts": 12},
    # lists
    "list_order": "createdAt",
    "list_cap": 1000,
    "list_limit": 1000,
    # the feed
    "feed_cap": 1000,
    "feed_limit": 1000,
    "feed_floor": 100,
    "feed_since": "exclusive",
    "feed_digits": 0,
    "feed_compare_digits": 0,
    "feed_ties": "commit",
    "feed_page_order": "ascending",
    "feed_duplicate_share": 0.0,
    "feed_ids": "commit",
    "feed_id_gap": 0,
    "merge_entries": False,
    "unknown_entry_share": 0.0,
    "late_seconds": 0,
    "late_share": 1.0,
    "ahead_seconds": 0,
    "retention_seconds": None,
    "retention_answer": "silent",
    # answers
    "lag_seconds": 0,
    "lag_share": 1.0,
    "lag_serves": ["lists", "records", "feed"],
    "record_digits": 0,
    "frozen_share": 0.0,
    "request_seconds": 0.05,
    "limit_per_minute": None,
    # the mirror
    "overlap_seconds": 60,
    "staleness_seconds": 15,
    "delete_mode": "hard",
    "list_look_minimum": 3,
    "commit_pages": 1,
    "clock_skew_seconds": 0,
}
"""The dullest value of each setting. Any of them goes together with any value of the others that a script may have:
lateness, lag and one second of coarseness always fit into the overlap, and lag into the staleness bound."""


def switches_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The sandbox's switches."""
    return {
        "list_order": settings["list_order"],
        "max_limit": settings["list_cap"],
        "feed_max_limit": settings["feed_cap"],
        "feed_since": settings["feed_since"],
        "feed_digits": settings["feed_digits"],
        "feed_compare_digits": settings["feed_compare_digits"],
        "feed_ties": settings["feed_ties"],
        "feed_page_order": settings["feed_page_order"],
        "feed_duplicate_share": settings["feed_duplicate_share"],
        "feed_ids": settings["feed_ids"],
        "feed_id_gap": settings["feed_id_gap"],
        "merge_entries": settings["merge_entries"],
        "unknown_entry_share": settings["unknown_entry_share"],
        "late_seconds": settings["late_seconds"],
        "late_share": settings["late_share"],
        "ahead_seconds": settings["ahead_seconds"],
        "retention_seconds": settings["retention_seconds"],
        "retention_answer": settings["retention_answer"],
        "replica_lag_seconds": settings["lag_seconds"],
        "replica_share": settings["lag_share"],
        "replica_serves": settings["lag_serves"],
        "record_digits": settings["record_digits"],
        "frozen_updated_at_share": settings["frozen_share"],
    }


def policy_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The mirror's policy."""
    overlap = settings["overlap_seconds"]
    retention = settings["retention_seconds"]
    return {
        "overlap_seconds": overlap,
        "staleness_seconds": settings["staleness_seconds"],
        "delete_mode": DeleteMode(settings["delete_mode"]),
        "page_limit": settings["list_limit"],
        "feed_limit": settings["feed_limit"],
        "feed_capacity_floor": min(settings["feed_floor"], settings["feed_cap"], settings["feed_limit"]),
        "list_look_minimum": settings["list_look_minimum"],
        "commit_pages": settings["commit_pages"],
        "single_batch": 4,
        # A cursor has to be checked before the feed can have forgotten what lies behind it.
        "retention_probe_seconds": 3_600 if retention is None else max(1, (retention - overlap) // 2),
    }
