"""Known ways to spoil the drain; each one has to make a history fail."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from rally_pipeline.sell import apply, device, drain, judgement
from rally_pipeline.sell.drain import QueueDrain
from rally_pipeline.sell.judgement import DELETED, Incoming, Stored, Verdict
from rally_pipeline.warehouse import FenceLost, Transaction, WarehouseError, identity
from tests.simulation.script import Mutant, patched

logger = logging.getLogger(__name__)
_take = QueueDrain._take
_judge = judgement.judge
_compare = identity.compare


@contextmanager
def acknowledge_before_commit() -> Iterator[None]:
    def take(self: QueueDrain, page: Any, session: Any) -> None:
        keys = [item.ack_key for item in page.items]
        if keys:
            self._client.acknowledge(keys)
        _take(self, page, session)

    with patched(QueueDrain, _take=take):
        yield


@contextmanager
def go_on_after_a_failed_commit() -> Iterator[None]:
    def take(self: QueueDrain, page: Any, session: Any) -> None:
        try:
            _take(self, page, session)
        except FenceLost:
            raise
        except WarehouseError as error:
            logger.info("the page is left out: %s", error)

    with patched(QueueDrain, _take=take):
        yield


@contextmanager
def higher_revision_wins() -> Iterator[None]:
    def judge(item: Incoming, stored: Stored | None) -> tuple[Verdict, str]:
        if stored is not None and (item.revision or 0) <= (stored.revision or 0):
            return Verdict.IGNORE, ""
        return (Verdict.DELETE, DELETED) if item.is_delete else (Verdict.APPLY, "")

    with patched(apply, judge=judge):
        yield


@contextmanager
def no_revision_guard() -> Iterator[None]:
    with patched(judgement, _compare=lambda item, stored: (Verdict.APPLY, "")):
        yield


@contextmanager
def revival_without_a_look() -> Iterator[None]:
    def judge(item: Incoming, stored: Stored | None) -> tuple[Verdict, str]:
        verdict, reason = _judge(item, stored)
        return (Verdict.APPLY, "") if reason == "revival" else (verdict, reason)

    with patched(apply, judge=judge):
        yield


@contextmanager
def shared_uuid() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(patched(device.DeviceClaims, holder=lambda self, uuid: None))
        stack.enter_context(patched(drain, check_first_items=_see_nothing, check_first_start=_see_nothing))
        yield


@contextmanager
def old_uuid_after_a_restore() -> Iterator[None]:
    def compare(*given: Any) -> identity.Identity:
        return replace(_compare(*given), moved=False, reasons=())

    with patched(identity, compare=compare):
        yield


def _see_nothing(_tx: Transaction, *_: object) -> None:
    """A check that finds nothing."""


MUTANTS = (
    Mutant("ack-before-commit", "acknowledges a page before it is committed", acknowledge_before_commit, 200),
    Mutant(
        "go-on-after-failed-commit",
        "goes on in a session after a page was not committed",
        go_on_after_a_failed_commit,
        200,
    ),
    Mutant(
        "higher-revision-wins", "compares revisions alone, also those of deletes", higher_revision_wins, 100
    ),
    Mutant("no-revision-guard", "takes every state for the newest one", no_revision_guard, 300),
    Mutant("revival-without-a-look", "applies a state of a deleted object", revival_without_a_look, 500),
    Mutant("shared-uuid", "does not notice that two warehouses use one device", shared_uuid, 300),
    Mutant("old-uuid-after-restore", "does not notice a restored backup", old_uuid_after_a_restore, 300),
)
