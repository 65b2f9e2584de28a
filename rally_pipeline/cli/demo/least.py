"""How few requests would have done: from the numbers that a run shows in Dagster."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance

PAGE = 1000
"""Rows of the largest page of Rally's lists and feed."""
SELL_BATCH = 100
"""Records that one request to Sell's REST API can bring."""


def least_requests(instance: DagsterInstance, run_id: str, *, queue_page: int) -> int:
    """Requests of the run that no client could do without; `queue_page`: items on a page of Sell's queue."""
    from dagster import DagsterEventType

    kinds = {DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_OBSERVATION}
    least = 0
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.asset_materialization or entry.asset_observation
        if event is not None:
            shown = {name.rpartition("/")[2]: item.value for name, item in event.metadata.items()}
            numbers = {name: value for name, value in shown.items() if isinstance(value, int | float)}
            least += _least(list(event.asset_key.path), numbers, queue_page)
    return least


def _least(path: list[str], numbers: Mapping[str, float], queue_page: int) -> int:
    match path:
        case ["rally_extract", _]:
            return max(1, ceil(numbers["received"] / PAGE))
        case ["rally_feed", _]:
            return max(1, ceil(numbers["run_recorded"] / PAGE)) if "run_recorded" in numbers else 0
        case ["rally", _] if "compared" in numbers:
            return max(1, ceil(numbers["compared"] / PAGE))
        case ["rally", _]:
            # A delete shows itself to a request for the one record only.
            return int(numbers["deleted"] + ceil((numbers["marks"] - numbers["deleted"]) / PAGE))
        case ["rally_files", name] if name.endswith("_import"):
            return int(1 + numbers["chunks"]) if numbers["requests"] else 0
        case ["rally_files", _]:
            return 1
        case ["sell_queue", _]:
            return 2 * ceil(numbers["items"] / queue_page) + 2
        case ["sell", _]:
            return ceil(numbers["marks"] / SELL_BATCH)
        case ["signalsmith", "catalog"]:
            return 3  # the list, the models for lineage, the workspace's time zone
        case ["signalsmith", _]:
            return int(
                3 + numbers["polls"]
            )  # the sync, its runs, the trigger; how long the run takes is not ours
    return 0
