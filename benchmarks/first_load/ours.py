"""This package as production runs it: the real client and mirror, anchors, versions, marks, cursor and checks."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rally_pipeline.rally.client import connect
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.mirror import RallyMirror
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.settings import load_settings
from rally_pipeline.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def mirror_of(url: str, database: str, page_size: int, **bounds: Any) -> Iterator[RallyMirror]:
    """A mirror of the tenant at `url`; `bounds` go over the policy of the default settings."""
    settings = load_settings(rally_api_url=url, rally_api_key="rk_benchmark", warehouse_url=database)
    client = connect(settings)
    with client.http, Warehouse.open(settings.warehouse) as warehouse:
        policy = replace(MirrorPolicy.of(settings), page_limit=page_size, **bounds)
        mirror = RallyMirror(warehouse, client, policy)
        mirror.prepare()
        yield mirror


def load(*, url: str, database: str, page_size: int, stage: str) -> dict[str, Any]:
    """A full extract; or, for what changed, the feed and the looks that settle its marks."""
    # Only deletes wait for the staleness bound; waiting is not work.
    with mirror_of(url, database, page_size, staleness_seconds=0) as mirror:
        if stage == "changed":
            mirror.read_changes()
            settled = mirror.settle(Entity.CONTACTS)
            return {"written": settled.inserted + settled.updated, "waiting": settled.waiting}
        result = mirror.extract(Entity.CONTACTS)
    return {
        "received": result.received,
        "written": result.inserted + result.updated,
        "inserted": result.inserted,
        "updated": result.updated,
        "unmet": result.unmet,
        "requests": result.cost.requests,
    }


def load_updated(*, url: str, database: str, page_size: int, stage: str) -> dict[str, Any]:
    """The simple way, what other loaders call incremental: rows updated since the last time, no deletes."""
    with mirror_of(url, database, page_size) as mirror:
        result = mirror.extract_updated(Entity.CONTACTS)
    return {"received": result.received, "written": result.inserted + result.updated}
