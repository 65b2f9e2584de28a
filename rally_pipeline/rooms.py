"""The rooms of the package as Dagster definitions: which there are, and those that are configured, merged."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import dagster as dg

from rally_pipeline.orchestration.policy import EXECUTOR
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """`module` has `build_defs(settings) -> Definitions`. It is imported only where `system` is configured; a room
    without a system is always there."""

    module: str
    system: str | None = None


ROOMS: tuple[Room, ...] = (
    Room("rally_pipeline.rally.defs", "rally"),
    Room("rally_pipeline.rally.files.defs", "rally"),
    Room("rally_pipeline.sell.defs", "sell"),
    Room("rally_pipeline.signalsmith.defs", "signalsmith"),
)
"""One line per room. A room brings its own resource; `warehouse` and the executor are shared and come from here."""


def build(settings: Settings, *, announce: bool = True) -> dg.Definitions:
    """The definitions of every configured room; with `announce`, what is absent and why goes to the log."""
    found = [_shared_defs(settings)]
    absent = set()
    for room in ROOMS:
        if room.system is None or settings.is_configured(room.system):
            with warnings.catch_warnings():
                # Every service would print these notices at every load, and nobody at the screen can act on them.
                warnings.simplefilter("ignore", dg.BetaWarning)
                found.append(_build_defs_of(room)(settings))
        else:
            absent.add(room.system)
    for system in sorted(absent) if announce else ():
        missing = " and ".join(settings.missing(system))
        logger.warning("%s is absent: set %s to see its assets", system, missing)
    return dg.Definitions.merge(*found)


def _build_defs_of(room: Room) -> Callable[[Settings], dg.Definitions]:
    build_defs: Callable[[Settings], dg.Definitions] = import_module(room.module).build_defs
    return build_defs


def _shared_defs(settings: Settings) -> dg.Definitions:
    return dg.Definitions(resources={"warehouse": WarehouseResource.of(settings)}, executor=EXECUTOR)
