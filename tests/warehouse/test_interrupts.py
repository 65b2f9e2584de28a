"""A signal that raises in the middle of anything: no transaction stays open, no lock stays taken."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from rally_pipeline.warehouse import Warehouse

STREAM = "rally.contacts"
TRACED = ("contextlib.py", "/warehouse/sessions.py", "/warehouse/database.py", "/warehouse/interrupts.py")
"""Files in which the signal may come at every instruction; elsewhere it comes between lines."""


class ToldToStop(BaseException):
    """What an orchestrator's signal handler raises."""


def raise_stop(_number: int, _frame: FrameType | None) -> None:
    raise ToldToStop


class SignalAt:
    """Sends a signal to this process at the n-th place of whatever runs inside; counts the places."""

    def __init__(self, place: int | None) -> None:
        self.places = 0
        self._place = place

    def __enter__(self) -> SignalAt:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        if event == "call":
            frame.f_trace_opcodes = frame.f_code.co_filename.endswith(TRACED)
        elif event in ("line", "opcode"):
            self.places += 1
            if self.places == self._place:
                signal.raise_signal(signal.SIGTERM)
        return self._trace


def write(store: Warehouse, value: int) -> None:
    # A lease for each: one whose holder was stopped is this process's until it ends, or runs out.
    with store.lease(f"stream {value}") as lease, store.transaction("test", lease) as tx:
        tx.set_state(STREAM, {"value": value})


@pytest.fixture
def stopping() -> Any:
    previous = signal.signal(signal.SIGTERM, raise_stop)
    yield
    signal.signal(signal.SIGTERM, previous)


@pytest.mark.fault("P2")
def test_a_signal_at_any_moment_leaves_no_transaction_open(warehouse_url: str, stopping: None) -> None:
    with (
        Warehouse.open(warehouse_url) as store,
        Warehouse.open(warehouse_url, lock_wait_seconds=0.2) as other,
    ):
        write(store, 0)
        with SignalAt(None) as counted:
            write(store, 0)
        kept: list[ToldToStop] = []
        step = max(1, counted.places // 400)
        for value, place in enumerate(range(1, counted.places, step), 1):
            with SignalAt(place):
                try:
                    write(store, value)
                except ToldToStop as stop:
                    kept.append(stop)  # as a traceback that somebody keeps: nothing is tidied up by chance
            with other.transaction("another") as tx:
                assert (tx.state(STREAM) or {})["value"] in (value, value - 1), place
                tx.set_state(STREAM, {"value": value})
            with store.transaction("the same thread") as tx:
                assert (tx.state(STREAM) or {})["value"] == value, place
        assert len(kept) > 300
        assert signal.getsignal(signal.SIGTERM) is raise_stop


@pytest.mark.fault("P2")
def test_a_signal_inside_a_transaction_ends_the_block_after_it(tmp_path: Path, stopping: None) -> None:
    with Warehouse.open(f"sqlite:///{tmp_path / 'w.db'}") as store:

        def work() -> None:
            with store.transaction("test") as tx:
                signal.raise_signal(signal.SIGTERM)
                tx.set_state(STREAM, {"value": 1})
            pytest.fail("the signal was not delivered")

        with pytest.raises(ToldToStop):
            work()
        with store.reading() as tx:
            assert tx.state(STREAM) == {"value": 1}


@pytest.mark.fault("P2")
def test_a_signal_is_not_forgotten_where_the_transaction_fails_by_itself(
    tmp_path: Path, stopping: None
) -> None:
    with Warehouse.open(f"sqlite:///{tmp_path / 'w.db'}") as store:

        def work() -> None:
            with store.transaction("test"):
                signal.raise_signal(signal.SIGTERM)
                raise ValueError("something else")

        with pytest.raises(ToldToStop):
            work()
