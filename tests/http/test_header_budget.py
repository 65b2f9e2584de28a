"""The rate budget in simulated worlds: several processes, one server, no word between them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from email.utils import format_datetime
from random import Random

import pytest

from rally_pipeline.http.header_budget import HeaderBudget
from rally_pipeline.http.shortage import Shortage
from rally_pipeline.http.transport import LimitReached, Response
from tests.http.fakes import START, START_SECONDS, FakeClock
from tests.http.limit_world import EPOCH, Oracle, Process, WindowServer, World

FLOOR: Callable[[float], str] = lambda end: str(math.floor(end))  # noqa: E731
CEILING: Callable[[float], str] = lambda end: str(math.ceil(end))  # noqa: E731
NEAREST: Callable[[float], str] = lambda end: str(round(end))  # noqa: E731
MILLISECONDS: Callable[[float], str] = lambda end: str(math.ceil(end * 1000))  # noqa: E731


def play(
    seed: int,
    *,
    oracle: bool = False,
    limit: int = 1000,
    period: float = 60.0,
    aligned: bool = True,
    phase: float = 0.0,
    write_reset: Callable[[float], str] = CEILING,
    processes: int = 1,
    slots: int = 1,
    round_trip: float = 0.05,
    skew: float = 0.3,
    windows: float = 2.4,
    others: float = 0.0,
) -> tuple[float, World]:
    """Work for `windows` windows, shared evenly by processes that start within `skew` seconds, in the first half of
    a window. Returns the seconds it took, and the world.
    """
    random = Random(seed)
    offset = EPOCH + random.random() * 3600
    offset -= ((offset - phase) % period) / 2  # the first half: a start at a window's end measures luck
    server = WindowServer(limit, period, aligned, phase, write_reset, offset)

    def process(number: int) -> Process:
        dice = Random(f"{seed}:{number}")
        pacer = Oracle(server) if oracle else HeaderBudget()
        return Process(
            pacer,
            int(limit * windows) // processes,
            slots,
            dice.random() * skew if number else 0.0,
            pause=lambda: round_trip * dice.random() / 4,
            latency=lambda: round_trip * (0.5 + dice.expovariate(2)),
        )

    world = World(server, [process(number) for number in range(processes)])
    if others:
        world.others(lambda now: others, until=1e9)
    return world.run(), world


WORLDS = {
    "whole seconds": {},
    "rounded down": {"phase": 0.37, "write_reset": FLOOR},
    "rounded up": {"phase": 0.37, "write_reset": CEILING},
    "rounded": {"phase": 0.61, "write_reset": NEAREST},
    "milliseconds": {"phase": 0.37, "write_reset": MILLISECONDS},
    "first request, down": {"aligned": False, "write_reset": FLOOR},
    "first request, up": {"aligned": False, "write_reset": CEILING},
}


@pytest.mark.fault("H7")
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("processes", "slots", "round_trip"), [(1, 8, 0.1), (3, 2, 0.05), (8, 2, 0.05)])
def test_a_thousand_a_minute_is_used_to_its_edge_without_a_refusal(
    world: str, processes: int, slots: int, round_trip: float
) -> None:
    arguments = {**WORLDS[world], "processes": processes, "slots": slots, "round_trip": round_trip}
    took, played = play(processes, **arguments)  # type: ignore[arg-type]
    shortest, _ = play(processes, oracle=True, **arguments)  # type: ignore[arg-type]
    assert played.server.refused == []
    assert took <= 1.05 * shortest


@pytest.mark.parametrize(("limit", "period"), [(250, 4.0), (300, 3.0), (100, 6.0), (500, 8.0)])
@pytest.mark.parametrize(("processes", "slots"), [(1, 1), (3, 1), (3, 4)])
def test_short_windows_are_used_to_their_edge_too(
    limit: int, period: float, processes: int, slots: int
) -> None:
    for seed in (3, 4, 5):
        arguments = {
            "limit": limit,
            "period": period,
            "processes": processes,
            "slots": slots,
            "round_trip": 0.002,
        }
        took, played = play(seed, **arguments)  # type: ignore[arg-type]
        shortest, _ = play(seed, oracle=True, **arguments)  # type: ignore[arg-type]
        assert played.server.refused == []
        assert took <= 1.05 * shortest


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_processes_get_fair_shares(processes: int) -> None:
    _, world = play(7, processes=processes, slots=2, windows=3)
    first = min(process.finished_at for process in world.processes)
    shares = [process.done_by(first) / process.work for process in world.processes]
    assert min(shares) > 0.75


@pytest.mark.parametrize("others", [1.0, 5.0, 12.0])
@pytest.mark.parametrize("processes", [1, 3])
def test_the_limit_is_shared_with_integrations_that_heed_nothing(others: float, processes: int) -> None:
    took, world = play(1, processes=processes, slots=2, others=others)
    shortest, _ = play(1, processes=processes, slots=2, others=others, oracle=True)
    assert world.server.refused == []
    assert took <= 1.05 * shortest


@pytest.mark.parametrize("round_trip", [1.0, 3.0])
def test_a_slow_server_is_not_slowed_further(round_trip: float) -> None:
    took, world = play(1, processes=2, slots=16, round_trip=round_trip, windows=1.5)
    shortest, _ = play(1, processes=2, slots=16, round_trip=round_trip, windows=1.5, oracle=True)
    assert world.server.refused == []
    assert took <= 1.05 * shortest


def test_processes_that_start_when_the_window_is_used_up_are_not_refused() -> None:
    server = WindowServer(limit=1000)
    early = Process(HeaderBudget(), work=1500, slots=4, latency=lambda: 0.02)
    late = [
        Process(HeaderBudget(), work=100, starts_at=15.0 + number, latency=lambda: 0.02)
        for number in range(8)
    ]
    World(server, [early, *late]).run()
    assert server.refused == []
    assert server.accepted == 2300


def test_after_a_long_pause_one_request_goes_first() -> None:
    clock, budget, server = FakeClock(), HeaderBudget(), WindowServer(limit=100, offset=EPOCH - 1000)
    for _ in range(60):
        assert budget.try_acquire(clock.elapsed) == 0
        budget.observe(server.answer(clock.elapsed), clock.elapsed, clock.elapsed)
        clock.elapsed += 0.01
    server.take(clock.elapsed, 39)  # others leave one request
    clock.elapsed += 5
    assert budget.try_acquire(clock.elapsed) == 0
    assert budget.try_acquire(clock.elapsed) == math.inf
    budget.observe(server.answer(clock.elapsed), clock.elapsed, clock.elapsed)
    assert budget.try_acquire(clock.elapsed) > 1
    assert server.refused == []


class Conversation:
    """One budget and a fake clock; answers are made by hand. The server's clock shows `START` at second 1000."""

    def __init__(self, clock: FakeClock | None = None, shortage: Shortage | None = None) -> None:
        self.clock = clock or FakeClock()
        self.budget = HeaderBudget(clock=self.clock, shortage=shortage)

    def answer(self, status: int = 200, **headers: object) -> None:
        """The answer to a request that was acquired before; `limit`, `remaining`, `reset` are the rate headers."""
        names = {
            "limit": "X-RateLimit-Limit",
            "remaining": "X-RateLimit-Remaining",
            "reset": "X-RateLimit-Reset",
        }
        date = format_datetime(START.fromtimestamp(self.server_time // 1, START.tzinfo), usegmt=True)
        sent = {names.get(name, name.replace("_", "-")): str(value) for name, value in headers.items()}
        response = Response(status, {"Date": date, **sent})
        self.budget.observe(response, self.clock.elapsed, self.clock.elapsed)

    @property
    def server_time(self) -> float:
        return START_SECONDS + self.clock.elapsed - 1000


def test_before_the_first_answer_one_request_goes_first() -> None:
    talk = Conversation()
    assert talk.budget.acquire() == 0
    assert talk.budget.try_acquire(talk.clock.elapsed) == math.inf
    talk.answer(limit=1000, remaining=999, reset=START_SECONDS + 60)
    assert [talk.budget.try_acquire(talk.clock.elapsed) for _ in range(50)] == [0] * 50


def test_a_used_up_window_is_waited_out_by_the_servers_clock() -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(limit=1000, remaining=3, reset=int(START_SECONDS + 42))
    waited = talk.budget.acquire()
    assert 42 <= waited <= 44
    assert sum(talk.clock.sleeps) == pytest.approx(waited)


FAR = int(START_SECONDS + 14 * 3600)


def test_a_reset_hours_ahead_is_asked_about_every_90_seconds_by_one_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(limit=1000, remaining=3, reset=FAR)
    assert 90 <= talk.budget.acquire() <= 91
    assert talk.budget.try_acquire(talk.clock.elapsed) == math.inf  # all others wait for its answer
    talk.clock.elapsed += 2
    talk.answer(limit=1000, remaining=2, reset=FAR)
    assert 90 <= talk.budget.acquire() <= 91
    talk.answer(limit=1000, remaining=999, reset=FAR + 60)  # the server's clock was wrong, not its window
    assert [talk.budget.try_acquire(talk.clock.elapsed) for _ in range(50)] == [0] * 50
    assert caplog.messages == [
        "rate limit: waiting 90 s, until 10:18:10 UTC: 3 of 1,000 requests are left until 2026-03-04 00:00:00 UTC",
        "rate limit: waiting 90 s, until 10:19:42 UTC: 2 of 1,000 requests are left until 2026-03-04 00:00:00 UTC",
    ]


@pytest.mark.parametrize("reset", [FAR, 50_400], ids=["a moment", "seconds from now"])
def test_a_reset_that_stays_far_away_is_given_up_after_half_an_hour_in_all(reset: int) -> None:
    talk = Conversation()
    sent = []
    talk.budget.acquire()
    talk.answer(limit=1000, remaining=3, reset=reset)

    def go_on() -> None:
        while True:
            talk.budget.acquire()
            sent.append(talk.clock.elapsed)
            talk.answer(limit=1000, remaining=3, reset=reset)

    with pytest.raises(LimitReached, match=r"3 of 1,000 requests are left until 2026-03-04 00:\d\d:\d\d UTC"):
        go_on()
    assert 1700 <= talk.clock.elapsed - 1000 <= 1800
    assert len(sent) == 20
    for _ in range(5):  # other calls do not wait as long again
        with pytest.raises(LimitReached):
            talk.budget.acquire()
    talk.clock.elapsed += 90
    assert talk.budget.acquire() == 0
    talk.answer(limit=1000, remaining=900, reset=reset + 100)
    assert talk.budget.acquire() == 0


def test_a_shortage_is_waited_for_once_by_all_budgets_of_an_account() -> None:
    clock, shortage = FakeClock(), Shortage()
    for longest in (1800, 0):
        talk = Conversation(clock, shortage)
        began = clock.elapsed
        talk.budget.acquire()
        talk.answer(limit=1000, remaining=3, reset=FAR)
        while True:
            try:
                talk.budget.acquire()
            except LimitReached:
                break
            talk.answer(limit=1000, remaining=3, reset=FAR)
        assert clock.elapsed - began <= longest


def test_threads_that_wait_for_a_far_reset_send_one_request_at_a_time_and_say_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class SharedClock(FakeClock):
        def sleep(self, seconds: float) -> None:
            until = self.elapsed + seconds
            while self.elapsed < until:
                time.sleep(0.001)

    clock = SharedClock()
    budget = HeaderBudget(clock=clock)
    under_way, most, sent, lock = 0, 0, 0, threading.Lock()
    headers = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "3", "X-RateLimit-Reset": str(FAR)}
    headers["Date"] = "Tue, 03 Mar 2026 10:00:00 GMT"

    def work() -> None:
        nonlocal under_way, most, sent
        try:
            while True:
                budget.acquire()
                with lock:
                    under_way, most, sent = under_way + 1, max(most, under_way + 1), sent + 1
                time.sleep(0.002)
                with lock:
                    under_way -= 1
                    budget.observe(Response(200, headers), clock.elapsed, clock.elapsed)
        except LimitReached:
            return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.001)
        clock.elapsed += 1
    assert most == 1
    assert sent <= 22
    assert len(caplog.messages) <= sent


def test_a_caller_that_may_not_wait_is_told_at_once() -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(limit=1000, remaining=3, reset=int(START_SECONDS + 42))
    with pytest.raises(LimitReached, match="3 of 1,000 requests are left until 2026-03-03 10:00:42 UTC"):
        talk.budget.acquire(talk.clock.elapsed + 10)
    assert talk.clock.sleeps == []
    talk.budget.acquire(talk.clock.elapsed + 60)


@pytest.mark.parametrize("headers", [{}, {"limit": 1000}, {"limit": "a", "remaining": "b", "reset": "c"}])
def test_without_usable_headers_nothing_is_paced(headers: dict[str, object]) -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(200, **headers)
    for _ in range(100):
        assert talk.budget.try_acquire(talk.clock.elapsed) == 0
    assert talk.clock.sleeps == []


def test_an_answer_without_headers_in_between_changes_nothing() -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(limit=1000, remaining=13, reset=int(START_SECONDS + 42))
    for status in (502, 200, 500):
        assert talk.budget.acquire() < 2
        talk.answer(status)
    assert talk.budget.acquire() > 30  # those three were counted as well


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry_After": 7}, 7, 7.1),
        ({"Retry_After": "Tue, 03 Mar 2026 10:00:20 GMT"}, 20, 20.1),
        ({"limit": 1000, "remaining": 0, "reset": START_SECONDS + 33}, 33, 34.1),
        ({}, 1, 3),
    ],
)
def test_after_a_429_all_wait_and_then_one_goes_first(
    headers: dict[str, object], least: float, most: float
) -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(429, **headers)
    assert least <= talk.budget.acquire() <= most
    assert talk.budget.try_acquire(talk.clock.elapsed) == math.inf
    talk.answer(200, limit=1000, remaining=900, reset=talk.server_time // 1 + 50)
    assert talk.budget.try_acquire(talk.clock.elapsed) == 0


def test_repeated_429_without_a_word_are_waited_for_longer_and_longer() -> None:
    talk = Conversation()
    waits = []
    for _ in range(8):
        waits.append(talk.budget.acquire())
        talk.answer(429)
    assert waits == [0, 2, 4, 8, 16, 32, 64, 90]


def test_a_reset_as_seconds_from_now_is_understood() -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(limit=1000, remaining=3, reset=42)
    assert 42 <= talk.budget.acquire() <= 44
    talk.answer(limit=1000, remaining=999, reset=60)
    for left in range(998, 900, -1):
        assert talk.budget.acquire() == 0
        talk.clock.elapsed += 0.3
        talk.answer(limit=1000, remaining=left, reset=60 - int((998 - left) * 0.3))


def test_a_server_clock_that_is_put_back_does_not_stop_the_pacing() -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(limit=1000, remaining=500, reset=START_SECONDS + 60)
    talk.clock.elapsed += 1
    talk.budget.acquire()
    back = "Tue, 03 Mar 2026 09:55:00 GMT"
    talk.answer(Date=back, limit=1000, remaining=499, reset=START_SECONDS - 240)
    assert talk.budget.acquire() == 0
    talk.answer(Date=back, limit=1000, remaining=2, reset=START_SECONDS - 240)
    assert 58 <= talk.budget.acquire() <= 62


def test_a_late_answer_from_the_window_before_does_not_count_for_this_one() -> None:
    talk = Conversation()
    budget, clock = talk.budget, talk.clock
    budget.acquire()
    talk.answer(limit=1000, remaining=800, reset=START_SECONDS + 10)
    assert budget.try_acquire(clock.elapsed) == 0
    slow_since = clock.elapsed
    clock.elapsed += 12
    budget.acquire()
    talk.answer(limit=1000, remaining=998, reset=START_SECONDS + 70)
    late = Response(
        200,
        {"Date": "Tue, 03 Mar 2026 10:00:01 GMT", "X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "1"}
        | {"X-RateLimit-Reset": str(START_SECONDS + 10)},
    )
    budget.observe(late, slow_since, clock.elapsed)
    for _ in range(100):
        assert budget.try_acquire(clock.elapsed) == 0


def test_requests_that_got_no_answer_are_counted() -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(limit=1000, remaining=16, reset=START_SECONDS + 42)
    for _ in range(4):
        talk.budget.acquire()
        talk.budget.observe(None, talk.clock.elapsed, talk.clock.elapsed)
    assert sum(talk.clock.sleeps) < 10
    for _ in range(2):
        talk.budget.acquire()
        talk.budget.observe(None, talk.clock.elapsed, talk.clock.elapsed)
    assert sum(talk.clock.sleeps) < 10
    assert talk.budget.acquire() > 30


def test_threads_wait_for_the_one_that_goes_first() -> None:
    budget = HeaderBudget()
    offset = time.time() - time.monotonic()
    server = WindowServer(limit=120, period=2.0, offset=offset)
    lock = threading.Lock()
    sent: list[float] = []

    def work() -> None:
        for _ in range(15):
            budget.acquire()
            start = time.monotonic()
            time.sleep(0.001)
            with lock:
                response = server.answer(time.monotonic())
                sent.append(start)
            budget.observe(response, start, time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert server.refused == []
    assert server.accepted == 180
    assert max(sent) - min(sent) < 5


def test_a_budget_shows_what_it_knows() -> None:
    talk = Conversation()
    talk.budget.acquire()
    talk.answer(limit=1000, remaining=16, reset=START_SECONDS + 42)
    assert "remaining=16" in repr(talk.budget)
