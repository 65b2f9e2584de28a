"""Known rates: never more in any span than allowed, shared by threads and by processes through a file."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rally_pipeline.http.token_budget import TokenBudget
from tests.http.fakes import FakeClock, respond

SELL = [(10, 1.0), (36_000, 3600.0)]
SIGNALSMITH = [(100, 60.0), (20, 1.0)]


def most_in_any_span(moments: Sequence[float], seconds: float) -> int:
    most = start = 0
    for end, moment in enumerate(moments):
        while moments[start] <= moment - seconds:
            start += 1
        most = max(most, end - start + 1)
    return most


def grants(budget: TokenBudget, clock: FakeClock, count: int, pause: float = 0.0) -> list[float]:
    moments = []
    for _ in range(count):
        budget.acquire()
        moments.append(clock.elapsed)
        clock.elapsed += pause
    return moments


@pytest.mark.parametrize(
    ("rates", "count", "shortest"),
    [(SELL, 3_000, 299 * 1.0), (SIGNALSMITH, 1_000, 9 * 60.0), ([(5, 10.0)], 100, 190.0)],
)
def test_no_span_holds_more_than_its_rate_and_little_is_wasted(
    rates: list[tuple[int, float]], count: int, shortest: float
) -> None:
    clock = FakeClock()
    moments = grants(TokenBudget(rates, clock=clock), clock, count)
    for allowed, seconds in rates:
        assert most_in_any_span(moments, seconds) <= allowed
    assert moments[-1] - moments[0] <= 1.12 * shortest


def test_the_hourly_rate_holds_when_it_is_the_tighter_one() -> None:
    clock = FakeClock()
    moments = grants(TokenBudget([(10, 1.0), (1_000, 3600.0)], clock=clock), clock, 2_500)
    assert most_in_any_span(moments, 3600.0) <= 1_000
    assert moments[-1] - moments[0] <= 1.02 * 2 * 3600 + 60


@settings(max_examples=40, deadline=None)
@given(
    rates=st.lists(st.tuples(st.integers(1, 40), st.floats(0.5, 100)), min_size=1, max_size=3),
    pauses=st.lists(st.floats(0, 5), min_size=50, max_size=150),
)
def test_no_span_ever_holds_more_than_its_rate(rates: list[tuple[int, float]], pauses: list[float]) -> None:
    clock = FakeClock()
    budget = TokenBudget(rates, clock=clock)
    moments = []
    for pause in pauses:
        budget.acquire()
        moments.append(clock.elapsed)
        clock.elapsed += pause
    for allowed, seconds in rates:
        assert most_in_any_span(moments, seconds) <= allowed


def test_a_burst_goes_out_at_once() -> None:
    clock = FakeClock()
    moments = grants(TokenBudget(SIGNALSMITH, clock=clock), clock, 20)
    assert moments[-1] == moments[0]
    assert clock.sleeps == []


def test_the_wait_is_reported() -> None:
    clock = FakeClock()
    budget = TokenBudget([(1, 10.0)], clock=clock)
    assert budget.acquire() == 0
    assert budget.acquire() == pytest.approx(10.1)
    assert clock.sleeps == [pytest.approx(10.1)]


def test_after_a_429_nobody_sends_before_the_servers_wait_is_over() -> None:
    clock = FakeClock()
    budget = TokenBudget(SIGNALSMITH, clock=clock)
    budget.acquire()
    budget.observe(respond(429, headers={"Retry-After": "30"}), clock.elapsed, clock.elapsed)
    assert budget.acquire() == pytest.approx(30)
    budget.observe(
        respond(429), clock.elapsed, clock.elapsed
    )  # says nothing: the client's own backoff is enough
    budget.observe(respond(200, headers={"Retry-After": "30"}), clock.elapsed, clock.elapsed)
    budget.observe(None, clock.elapsed, clock.elapsed)
    assert budget.acquire() == 0


def test_a_turn_given_before_a_429_is_void() -> None:
    class Refusing(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if len(self.sleeps) == 1:  # while this call waits for its turn, another one is refused
                budget.observe(respond(429, headers={"Retry-After": "60"}), self.elapsed, self.elapsed)

    budget = TokenBudget([(1, 10.0)], clock=Refusing(), allowance_seconds=0)
    budget.acquire()
    assert budget.acquire() == pytest.approx(10 + 60)


def test_threads_share_a_budget() -> None:
    budget = TokenBudget([(10, 0.2)], allowance_seconds=0.02)
    moments: list[float] = []

    def work() -> None:
        for _ in range(5):
            budget.acquire()
            moments.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(moments) == 40
    assert most_in_any_span(sorted(moments), 0.1) <= 10  # a busy machine delays the reading of the clock
    assert 0.6 <= max(moments) - min(moments) <= 2


def test_budgets_of_one_file_share_the_rates(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "home" / "sell.rate"
    first = TokenBudget([(2, 10.0)], clock=clock, state_path=path)
    second = TokenBudget([(2, 10.0)], clock=clock, state_path=path)
    assert [first.acquire(), second.acquire()] == [0, 0]
    assert second.acquire() == pytest.approx(10.1)
    first.observe(respond(429, headers={"Retry-After": "50"}), clock.elapsed, clock.elapsed)
    assert second.acquire() == pytest.approx(50)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b'{"grants": []}', b'{"grants": 7}', b"\xff" * 100, b"{" * 10_000]
)
def test_a_damaged_file_is_started_anew(tmp_path: Path, content: bytes) -> None:
    clock, path = FakeClock(), tmp_path / "sell.rate"
    path.write_bytes(content)
    budget = TokenBudget([(1, 10.0)], clock=clock, state_path=path)
    assert budget.acquire() == 0
    assert budget.acquire() == pytest.approx(10.1)


def test_after_a_restart_of_the_machine_the_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sell.rate"
    before = FakeClock()
    TokenBudget([(1, 3600.0)], clock=before, state_path=path).acquire()

    class Restarted(FakeClock):
        def monotonic(self) -> float:
            return self.elapsed - 990  # the monotonic clock starts anew, the wall clock goes on

    assert TokenBudget([(1, 3600.0)], clock=Restarted(), state_path=path).acquire() == 0


def test_the_file_stays_small(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "sell.rate"
    grants(TokenBudget(SELL, clock=clock, state_path=path), clock, 2_000, pause=0.5)
    assert path.stat().st_size < 10_000


WORKER = """
import json, sys, time
from pathlib import Path
from rally_pipeline.http.token_budget import TokenBudget
budget = TokenBudget([(20, 0.5)], state_path=Path(sys.argv[1]), allowance_seconds=0.02)
moments = []
for _ in range(30):
    budget.acquire()
    moments.append(time.monotonic())
print(json.dumps(moments))
"""


def test_processes_share_the_rates_through_the_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path / "shared.rate")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    moments = sorted(moment for worker in workers for moment in json.loads(worker.communicate(timeout=60)[0]))
    assert len(moments) == 90
    assert most_in_any_span(moments, 0.25) <= 20  # a busy machine delays the reading of the clock


@pytest.mark.parametrize("rates", [[], [(0, 1.0)], [(1, 0.0)], [(5, -1.0)]])
def test_rates_that_make_no_sense_are_refused(rates: list[tuple[int, float]]) -> None:
    with pytest.raises(ValueError, match="a rate is"):
        TokenBudget(rates)
