"""What a process does that is to be killed: one whole sync over real sockets, then it is over.

Run in processes that a fork server makes; they import this module once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from rally_pipeline.rally.client import connect
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.mirror import RallyMirror
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.sell.client import SellClient
from rally_pipeline.sell.entities import Entity as SellEntity
from rally_pipeline.sell.mirror import SellMirror
from rally_pipeline.sell.policy import SellPolicy
from rally_pipeline.settings import load_settings
from rally_pipeline.warehouse import Warehouse
from tests.sell.world import plain_client
from tests.simulation.runner import spoiled
from tests.simulation.script import load

PATIENCE_SECONDS = 30.0


def sync_rally(url: str, _environment: Mapping[str, str]) -> None:
    """A full extract, the feed, and every look."""
    settings = load_settings()
    with Warehouse.open(url) as warehouse:
        policy = MirrorPolicy.of(settings)
        mirror = RallyMirror(warehouse, connect(settings), policy, patience_seconds=PATIENCE_SECONDS)
        mirror.prepare()
        for entity in Entity:
            mirror.extract(entity)
        mirror.read_changes()
        for entity in Entity:
            mirror.settle(entity)


def sync_sell(url: str, environment: Mapping[str, str]) -> None:
    """The queue to its end, and every look; without the rate budget, which would pace the killing."""
    with Warehouse.open(url) as warehouse, plain_client(dict(environment)) as http:
        client = SellClient(http, device_uuid=environment["SELL_DEVICE_UUID"])
        policy = SellPolicy(
            staleness_seconds=0, empty_pause_seconds=0.01, lease_wait_seconds=PATIENCE_SECONDS
        )
        mirror = SellMirror(warehouse, client, policy)
        mirror.prepare()
        mirror.drain()
        mirror.settle(SellEntity)


LIVES: dict[str, Callable[[str, Mapping[str, str]], None]] = {"rally": sync_rally, "sell": sync_sell}


def live(system: str, url: str, environment: Mapping[str, str], errors: Path, mutant: str) -> None:
    """The whole life of a process, spoiled by the mutant of that name if there is one; its words go to the file."""
    with errors.open("a", encoding="utf-8") as said:
        os.dup2(said.fileno(), sys.stdout.fileno())
        os.dup2(said.fileno(), sys.stderr.fileno())
        os.environ.update(environment)
        with spoiled(load(system), mutant) if mutant else nullcontext():
            LIVES[system](url, environment)
