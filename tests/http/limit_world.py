"""A world in virtual time for rate budgets: a server that counts in windows, and processes that share it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Protocol

from rally_pipeline.http.transport import Response

EPOCH = 1_772_000_000.0


@dataclass
class WindowServer:
    """Counts requests in fixed windows and says so in headers; its clock is `offset` ahead of the local one."""

    limit: int = 1000
    period: float = 60.0
    aligned: bool = True
    phase: float = 0.0
    write_reset: Callable[[float], str] = lambda end: str(math.floor(end))
    offset: float = EPOCH
    headers: bool = True
    start: float = field(default=-math.inf, init=False)
    used: int = field(default=0, init=False)
    accepted: int = field(default=0, init=False)
    refused: list[float] = field(default_factory=list, init=False)

    def take(self, now: float, count: int = 1) -> bool:
        """Use up `count` requests at local second `now`; False when they are refused."""
        server_now = now + self.offset
        if server_now >= self.start + self.period:
            self.start = server_now
            if self.aligned:
                self.start = math.floor((server_now - self.phase) / self.period) * self.period + self.phase
            self.used = 0
        if self.used + count > self.limit:
            return False
        self.used += count
        return True

    def opens_at(self) -> float:
        """The local second at which the next window opens."""
        return self.start + self.period - self.offset

    def answer(self, now: float) -> Response:
        ok = self.take(now)
        if ok:
            self.accepted += 1
        else:
            self.refused.append(now)
        headers = {
            "Date": format_datetime(datetime.fromtimestamp(math.floor(now + self.offset), UTC), usegmt=True)
        }
        if self.headers:
            headers["X-RateLimit-Limit"] = str(self.limit)
            headers["X-RateLimit-Remaining"] = str(self.limit - self.used)
            headers["X-RateLimit-Reset"] = self.write_reset(self.start + self.period)
        return Response(200 if ok else 429, headers, b"[]")


class Pacer(Protocol):
    """What the world needs of a budget."""

    def try_acquire(self, now: float) -> float: ...

    def observe(self, response: Response | None, sent_at: float, received_at: float) -> None: ...


class Oracle:
    """Knows the server's counter and window: no budget can be faster without being refused."""

    def __init__(self, server: WindowServer) -> None:
        self._server = server

    def try_acquire(self, now: float) -> float:
        server = self._server
        if now >= server.opens_at() or server.used < server.limit:
            return 0.0
        return max(server.opens_at() - now, 1e-6)

    def observe(self, response: Response | None, sent_at: float, received_at: float) -> None:
        pass


@dataclass
class Process:
    """One process: `slots` threads that together send `work` requests, paced by one budget."""

    pacer: Pacer
    work: int
    slots: int = 1
    starts_at: float = 0.0
    pause: Callable[[], float] = lambda: 0.0
    latency: Callable[[], float] = lambda: 0.001
    finished_at: float = 0.0
    begun: int = 0
    answered_at: list[float] = field(default_factory=list)
    done: int = 0
    parked: list[int] = field(default_factory=list)

    def done_by(self, when: float) -> int:
        """Requests answered by second `when`."""
        return sum(1 for moment in self.answered_at if moment <= when)


class World:
    """Runs processes and other integrations against one server until all the work is done."""

    def __init__(self, server: WindowServer, processes: list[Process]) -> None:
        self.server = server
        self.processes = processes
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0

    def at(self, when: float, event: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, event))

    def others(self, rate: Callable[[float], float], *, until: float) -> None:
        """Another integration: `rate(now)` requests a second, evenly spaced, refused without a word."""

        def use(now: float) -> None:
            self.server.take(now)
            if now < until:
                self.at(now + 1 / max(rate(now), 1e-3), use)

        self.at(0.0, use)

    def run(self, *, longest: float = 36_000.0) -> float:
        """Play until all is done; returns the second at which the last answer came."""
        for process in self.processes:
            for slot in range(process.slots):
                self.at(process.starts_at, self._asking(process, slot))
        while self._events and any(process.done < process.work for process in self.processes):
            now, _, event = heapq.heappop(self._events)
            if now > longest:
                raise AssertionError(f"not done after {longest} s: {[p.done for p in self.processes]}")
            event(now)
        return max(process.finished_at for process in self.processes)

    def _asking(self, process: Process, slot: int) -> Callable[[float], None]:
        def ask(now: float) -> None:
            if process.begun >= process.work:
                return
            delay = process.pacer.try_acquire(now)
            if math.isinf(delay):
                process.parked.append(slot)
                return
            if delay > 0:
                self.at(now + delay, ask)
                return
            process.begun += 1
            there, back = process.latency() / 2, process.latency() / 2
            self.at(now + there, lambda arrived: self._arrive(process, slot, now, arrived, back))

        return ask

    def _arrive(self, process: Process, slot: int, sent: float, arrived: float, back: float) -> None:
        response = self.server.answer(arrived)
        self.at(arrived + back, lambda received: self._finish(process, slot, response, sent, received))

    def _finish(self, process: Process, slot: int, response: Response, sent: float, received: float) -> None:
        process.pacer.observe(response, sent, received)
        if response.status == 200:
            process.done += 1
            process.finished_at = received
            process.answered_at.append(received)
        else:
            process.begun -= 1
        parked, process.parked = process.parked, []
        for other in parked:
            self.at(received, self._asking(process, other))
        self.at(received + process.pause(), self._asking(process, slot))
