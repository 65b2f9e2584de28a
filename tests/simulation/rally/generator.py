"""Random Rally scripts, biased towards the shapes in which a careless reader loses something.

Each script has a theme. The rarest defects show only where several rare things meet (a group of equal times as large
as a page, an entry as late as the bound allows, a crash between two commits), so the themes bring them together.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.simulation.rally.settings import DULL
from tests.simulation.script import Event, Script

ORDERS = ("id", "createdAt", "updatedAt", "-id", "-createdAt", "-updatedAt")
SHORT_FAULTS = (
    "reset_before_headers", "close_before_headers", "lost_answer", "cut_headers", "reset_in_body", "cut_body",
    "cut_chunked", "cut_close_delimited", "chunked", "close_delimited", "stall", "stall_body", "drip_headers",
    "drip_body", "close_after", "interim", "second_answer", "unsolicited", "duplicate_headers", "endless_headers",
    "huge_body", "html_503", "redirect", "throttle", "bad_date", "no_date", "no_rate_headers", "bad_rate_headers",
    "unmarked", "html_200", "empty_200", "error_200", "odd_success", "wrong_shape", "null_200", "wrong_type", "no_type",
    "byte_order_mark", "utf_16", "latin_1", "cut_json", "deep_json", "gzip_body", "wrong_gzip", "cut_gzip", "gzip_bomb",
    "status_500", "status_502", "status_504", "applied_500", "status_408", "status_409", "status_413", "status_429",
    "unauthorized", "forbidden", "always_429",
)  # fmt: skip
"""Faults that strike some requests. A 404 of a record is not among them: that answer *is* the word of the source."""
LYING_FAULTS = ("huge_number", "long_integer", "many_keys", "duplicate_keys", "nan")
BIG = {"huge_body": {"size": 2_000_000}, "gzip_bomb": {"size": 2_000_000}, "deep_json": {"depth": 5_000}}
PATHS = ("/sync/changes", "/contacts", "/companies", "/deals", "/activities", "/*", "/*/*")


def generate(seed: int) -> Script:
    """The script of this seed."""
    return _Generator(seed).script()


class _Generator:
    """One script in the making."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = Random(f"rally:{seed}")
        self.events: list[Event] = []
        self.settings = self._draw_settings()
        self.entities = list(self.settings["records"])

    def script(self) -> Script:
        themes: list[tuple[Callable[[], None], int]] = [
            (self._lists, 4),
            (self._interrupted_extract, 3),
            (self._shifted_pages, 5),
            (self._ties, 4),
            (self._lateness, 5),
            (self._slow_reads, 4),
            (self._stale_answers, 3),
            (self._crashes, 5),
            (self._two_writers, 3),
            (self._faults, 4),
            (self._pauses, 3),
            (self._anything, 4),
        ]
        theme = self.dice.choices([theme for theme, _ in themes], [weight for _, weight in themes])[0]
        theme()
        settings = {name: value for name, value in self.settings.items() if value != DULL[name]}
        return Script("rally", self.seed, settings, tuple(self.events))

    # ------------------------------------------------------------------ settings

    def _draw_settings(self) -> dict[str, Any]:
        dice = self.dice
        drawn = dict(DULL)
        names = ["contacts", "companies", "deals", "activities"]
        chosen = dice.sample(names, dice.choice((1, 1, 1, 2)))
        drawn["records"] = {name: dice.randrange(6, 26 // len(chosen)) for name in chosen}
        cap = dice.choice((4, 4, 5, 6, 8, 12, 64))
        feed_cap = dice.choice((4, 4, 5, 6, 9, 16, 64))
        late, lag = dice.choice((0, 0, 10, 30)), dice.choice((0, 0, 0, 5, 15))
        digits = dice.choice(((0, 0), (0, 0), (0, 7), (3, 3), (3, 7), (7, 7)))
        drawn.update(
            list_order=dice.choice(ORDERS),
            list_cap=cap,
            list_limit=dice.choice((cap, 1000)),
            feed_cap=feed_cap,
            feed_limit=dice.choice((feed_cap, 1000, 1000)),
            # A floor below the true capacity lets the mirror ask for full passes, which heal what it missed.
            feed_floor=dice.choice((feed_cap, feed_cap, feed_cap, feed_cap, 4, 2)),
            feed_since=dice.choice(("exclusive", "exclusive", "inclusive")),
            feed_digits=digits[0],
            feed_compare_digits=digits[1],
            feed_ties=dice.choice(("commit", "commit", "shuffled", "reversed")),
            late_seconds=late,
            late_share=dice.choice((1.0, 0.4)),
            lag_seconds=lag,
            lag_share=dice.choice((1.0, 0.5)),
            overlap_seconds=late + lag + 1 + dice.choice((0, 0, 1, 4)),
            staleness_seconds=lag,
            record_digits=dice.choice((0, 0, 3, 7)),
            request_seconds=dice.choice((0.0, 0.05, 0.4, 2.0)),
            delete_mode=dice.choice(("hard", "soft")),
            list_look_minimum=dice.choice((3, 3, 1000)),
            commit_pages=dice.choice((1, 1, 2, 3, 10)),
        )
        self._draw_rarities(drawn)
        return drawn

    def _draw_rarities(self, drawn: dict[str, Any]) -> None:
        dice = self.dice
        rare: dict[str, tuple[float, Any]] = {
            "feed_page_order": (0.1, "shuffled"),
            "feed_duplicate_share": (0.1, 0.3),
            "feed_ids": (0.2, "change"),
            "feed_id_gap": (0.2, 5),
            "merge_entries": (0.08, True),
            "unknown_entry_share": (0.06, 0.3),
            "ahead_seconds": (0.08, 3),
            "frozen_share": (0.15, 0.5),
            "limit_per_minute": (0.08, dice.choice((30, 100))),
            "clock_skew_seconds": (0.12, dice.choice((-3600, -20, 20, 3600))),
            "lag_serves": (0.2, dice.choice((["lists"], ["records"], ["feed"], ["lists", "records"]))),
        }
        for name, (share, value) in rare.items():
            if dice.random() < share:
                drawn[name] = value

    # ------------------------------------------------------------------ small parts

    def _do(self, name: str, **arguments: Any) -> None:
        self.events.append(Event(name, {key: value for key, value in arguments.items() if value is not None}))

    def _entity(self) -> str:
        chosen: str = self.dice.choice(self.entities)
        return chosen

    def _step(self) -> int:
        """A step of the next operation, more often an early one."""
        return self.dice.randrange(1, self.dice.choice((8, 25, 60, 120)))

    def _change(self, step: int | None = None, **fixed: Any) -> None:
        dice = self.dice
        kind = (
            fixed.pop("kind", None)
            or dice.choices(("insert", "update", "delete", "revive", "reborn"), (3, 4, 2, 1, 2))[0]
        )
        change: dict[str, Any] = {
            "kind": kind,
            "entity": self._entity(),
            "n": dice.choice((1, 1, 2, 3, 5)),
            "first": True if dice.random() < 0.3 else None,
            "over": dice.choice((0, 0, 1, 4)),
            "late": self._late_of(kind),
            "seed": dice.randrange(1_000_000),
            "step": step,
        }
        self._do("change", **{**change, **fixed})

    def _late_of(self, kind: str) -> list[float] | None:
        """Now and then exactly as late as the bound allows, or at once; of a rebirth, only one of its two parts."""
        bound = float(self.settings["late_seconds"])
        if not bound or self.dice.random() < 0.4:
            return None
        if kind == "reborn":
            return self.dice.choice(([bound, 0.0], [0.0, bound], [bound, bound]))
        return self.dice.choice(([bound], [0.0], [bound, 0.0], [0.0, 0.0, bound]))

    def _wait(self, *choices: float) -> None:
        seconds = self.dice.choice(choices or (0, 1, 5, 20))
        if seconds:
            self._do("wait", seconds=seconds)

    def _disturb(self, changes: int = 0, crash: float = 0.0, rival: float = 0.0) -> None:
        """What befalls the operation that follows."""
        dice = self.dice
        for _ in range(changes):
            self._change(step=self._step())
        if dice.random() < crash:
            elsewhere = True if dice.random() < 0.15 else None
            self._do("crash", step=self._step(), elsewhere=elsewhere)
        elif dice.random() < crash / 4:
            self._do("fail_commit", step=self._step())
        if dice.random() < rival:
            self._rival()

    def _rival(self) -> None:
        dice = self.dice
        self._do(
            "rival",
            work=dice.choice(("cycle", "feed", "settle", "extract", "restart")),
            entity=self._entity(),
            pause=dice.choice((0, 1, 130, 130)),
            life=dice.choice((None, None, dice.randrange(1, 50))),
            step=self._step(),
        )

    def _operate(self, *names: str) -> None:
        """One operation of the mirror."""
        name = self.dice.choice(names or ("cycle", "cycle", "feed", "settle", "extract"))
        if name == "extract":
            self._do(name, entity=self._entity(), restart=True if self.dice.random() < 0.2 else None)
        elif name == "settle":
            self._do(name, entity=self._entity(), wait=False if self.dice.random() < 0.4 else None)
        elif name in ("updated", "verify"):
            self._do(name, entity=self._entity())
        elif name == "window":
            back = self.dice.randrange(1, 200)
            self._do(name, back=back, length=self.dice.randrange(1, 2 * back))
        else:
            self._do(name)

    def _begin(self, *, disturbed: int = 0) -> None:
        """The first full pass."""
        self._disturb(disturbed)
        self._do("cycle")

    # ------------------------------------------------------------------ themes

    def _lists(self) -> None:
        """Lists that move while they are read, above all in the first pass: what it misses, nothing else brings."""
        dice = self.dice
        for entity in self.entities:
            for _ in range(dice.choice((1, 2, 2, 3))):
                kind = dice.choice(("delete", "delete", "update", "update", "insert", "reborn"))
                self._change(
                    step=dice.randrange(8, 50),
                    kind=kind,
                    entity=entity,
                    n=dice.choice((1, 3, 4, 5, self.settings["list_cap"] % 50)),
                    first=True if dice.random() < 0.8 else None,
                    over=0,
                )
            self._disturb(crash=0.2)
            self._do("extract", entity=entity)
        for _ in range(dice.choice((1, 2))):
            self._wait(1, 5, 40)
            self._change()
            self._do("cycle")

    def _interrupted_extract(self) -> None:
        """A full pass that is interrupted, while the source goes on and the feed and the looks bring rows."""
        dice = self.dice
        entity = self._entity()
        for _ in range(dice.choice((1, 2))):
            self._do("crash", step=dice.randrange(10, 60))
            self._do("extract", entity=entity)
            self._change(kind="delete", entity=entity, n=dice.choice((3, 4, 6)), first=True)
            kind = dice.choice(("insert", "insert", "update", "reborn"))
            self._change(kind=kind, entity=entity, n=dice.choice((1, 3, 4)), first=True, late=[0])
            self._wait(0, 3, 50, 200)
            if dice.random() < 0.7:
                self._do("feed")
                self._wait(0, 20)
                self._do("settle", entity=entity)
            self._change(entity=entity)
        self._disturb(1, crash=0.2)
        self._do("extract", entity=entity)
        self._wait(0, 10, 60)
        self._do("cycle")

    def _shifted_pages(self) -> None:
        """A short list whose first rows leave or move to its end between two pages of the first pass, so that the
        next page shows known rows, or rows that a look stored, but not all that stood before them.
        """
        dice = self.dice
        cap = dice.choice((4, 5, 6))
        moved = cap + dice.choice((-1, 0, 1, 2))
        entity = self.entities[0]
        self.entities = [entity]
        order = dice.choice(("updatedAt", "updatedAt", "updatedAt", "createdAt"))
        count = moved + cap + dice.choice((-1, 0, 1))
        self.settings.update(list_cap=cap, list_order=order, records={entity: count}, frozen_share=0.0)
        if dice.random() < 0.8:
            self.settings["lag_seconds"] = 0
        to_the_end = "update" if order == "updatedAt" else "reborn"
        if dice.random() < 0.5:
            # Steps 21 to 25 of a first pass lie between its first two pages, the next five between the next two.
            step = dice.randrange(21, 26) + dice.choice((0, 0, 0, 5))
            self._change(step=step, kind=to_the_end, n=moved, first=True, over=0)
            self._do("extract", entity=entity)
        else:
            self._do("crash", step=dice.randrange(23, 34))
            self._do("extract", entity=entity)
            self._change(kind="delete", n=moved, first=True, over=0, late=[0.0])
            self._change(
                kind=dice.choice(("insert", to_the_end)), n=dice.choice((1, 2, 3)), over=0, late=[0.0]
            )
            self._wait(self.settings["lag_seconds"], 20)
            self._do("feed")
            self._wait(0, 20)
            self._do("settle", entity=entity)
            self._do("extract", entity=entity)
        self._wait(1, 30)
        self._do("cycle")

    def _ties(self) -> None:
        """Groups of equal times around the size of a page, read when they are older than the overlap."""
        dice = self.dice
        cap = min(self.settings["feed_cap"], 16)
        self._begin()
        for _ in range(dice.choice((1, 2, 3))):
            for _ in range(dice.choice((0, 1, 2))):
                self._change(n=dice.choice((1, 2, 3)))
                self._wait(0, 1, 2)
            self._change(
                kind=dice.choice(("insert", "update", "update", "delete")),
                n=max(1, cap + dice.choice((-2, -1, 0, 0, 1, 2, 3))),
                over=0,
                first=None,
            )
            for _ in range(dice.choice((0, 0, 1, 2))):
                self._wait(1, 2)
                self._change(n=dice.choice((1, 2, 3)))
            self._wait(0, 10, 70, 120)
            self._disturb(dice.choice((0, 0, 1)), crash=0.15)
            self._operate("cycle", "feed")

    def _lateness(self) -> None:
        """Entries that appear as late as they may, behind others that were read already."""
        dice = self.dice
        self._set_lateness(dice.choice((10, 30)))
        self._begin()
        late = self.settings["late_seconds"]
        for _ in range(dice.choice((3, 4, 5))):
            for _ in range(dice.choice((1, 2, 3))):
                self._change(n=dice.choice((1, 2)), late=self._late_of(dice.choice(("reborn", "update"))))
                self._wait(0, 1, 3)
            if dice.random() < 0.5:
                self._change(kind="reborn", n=1, late=[late, 0])
            self._wait(1, late / 2, late - 1, late, late + 1)
            self._disturb(dice.choice((0, 1)), crash=0.1)
            self._operate("cycle", "cycle", "feed")

    def _slow_reads(self) -> None:
        """Reads of the feed that take as long as entries may be late, by slow answers or by an interruption."""
        dice = self.dice
        late = dice.choice((12, 30))
        self._set_lateness(late)
        cap = dice.choice((4, 5))
        self.settings.update(feed_cap=cap, feed_floor=cap, request_seconds=late / dice.choice((4, 6, 8)))
        self._begin()
        for _ in range(dice.choice((2, 3))):
            self._change(n=dice.choice((1, 3, 5)), over=2, late=[0.0])
            self._change(n=dice.choice((1, 2)), late=[float(late)])
            self._wait(1, 2)
            # Read soon, these carry the position past the late ones before they appear.
            self._change(
                n=dice.choice((5, 8, 11)), over=3, late=dice.choice(([0.0], [0.0, 0.0, 0.0, float(late)]))
            )
            if dice.random() < 0.5:
                self._do("crash", step=dice.randrange(6, 30))
            self._do("feed")
            self._wait(0, 5, 60)
            self._disturb(dice.choice((0, 1)), crash=0.2)
            self._operate("feed", "cycle")
            self._wait(0, 5, 60)

    def _set_lateness(self, late: int) -> None:
        spare = self.settings["overlap_seconds"] - self.settings["late_seconds"]
        self.settings.update(late_seconds=late, overlap_seconds=late + spare)

    def _stale_answers(self) -> None:
        """Answers as old as they may be, right after changes."""
        dice = self.dice
        lag = dice.choice((5, 15))
        spare = self.settings["overlap_seconds"] - self.settings["lag_seconds"]
        self.settings.update(lag_seconds=lag, staleness_seconds=lag, overlap_seconds=lag + spare)
        self._begin(disturbed=dice.choice((0, 1)))
        for _ in range(dice.choice((3, 4, 5))):
            self._change()
            self._wait(0, 1, lag - 1, lag, lag + 1)
            self._disturb(dice.choice((0, 1, 2)), crash=0.15)
            self._operate("cycle", "cycle", "feed", "settle", "extract")

    def _crashes(self) -> None:
        """A death in nearly every operation, above all in reads that have something to record."""
        dice = self.dice
        self._begin()
        for _ in range(dice.choice((4, 5, 6))):
            self._change(n=dice.choice((1, 2, 4)))
            self._wait(0, 1, 20)
            if dice.random() < 0.6:
                self._do("crash", step=dice.randrange(1, 20))
                self._do("feed")
            else:
                self._disturb(dice.choice((0, 1)), crash=0.8)
                self._operate()
        self._wait(0, 60)

    def _two_writers(self) -> None:
        """Another process works on the same database, between any two steps, also after the lease has run out."""
        dice = self.dice
        self._begin(disturbed=dice.choice((0, 1)))
        for _ in range(dice.choice((3, 4))):
            self._change(n=dice.choice((1, 2, 4)))
            self._wait(0, 1, 10)
            self._disturb(dice.choice((0, 1, 2)), crash=0.15, rival=0.9)
            self._operate("cycle", "feed", "settle", "extract", "extract")

    def _faults(self) -> None:
        """Requests meet faults, one after the other."""
        dice = self.dice
        if dice.random() < 0.4:
            self._fault()
        self._begin(disturbed=dice.choice((0, 1)))
        for _ in range(dice.choice((3, 4, 5))):
            self._change()
            for _ in range(dice.choice((0, 1, 2))):
                self._fault()
            if dice.random() < 0.15:
                self._do("outage", seconds=dice.choice((5, 60, 600)))
            self._wait(0, 5, 30, 100)
            self._disturb(dice.choice((0, 1)), crash=0.1)
            self._operate()

    def _fault(self) -> None:
        dice = self.dice
        if dice.random() < 0.03:
            name = dice.choice(LYING_FAULTS)
        elif dice.random() < 0.04 and not any(
            event.arguments.get("fault") == "date_skew" for event in self.events
        ):
            # One wrong date does no harm; that two in a row do none is not promised.
            self._do("fault", fault="date_skew", seconds=dice.choice((-7200, -60, 60, 7200)), path="/*", times=1,
                     after=dice.randrange(0, 6))  # fmt: skip
            return
        else:
            name = dice.choice(SHORT_FAULTS)
        self._do(
            "fault",
            fault=name,
            path=dice.choice(PATHS),
            after=dice.randrange(0, 6),
            times=dice.choice((1, 1, 1, 2, 5)),
            **BIG.get(name, {}),
        )

    def _pauses(self) -> None:
        """Long pauses, also beyond what the feed remembers; the server's clock may be put back."""
        dice = self.dice
        if dice.random() < 0.7:
            self.settings["retention_seconds"] = dice.choice((300, 900))
            self.settings["retention_answer"] = dice.choice(("silent", "error"))
        self._begin()
        for _ in range(dice.choice((2, 3, 4))):
            self._change()
            if dice.random() < 0.25:
                self._do("set_back", seconds=dice.choice((1, 5, 30, 100)))
                self._change()
            self._wait(1, 60, 400, 2000, 5000)
            if dice.random() < 0.5:
                self._change()
            self._disturb(dice.choice((0, 1)), crash=0.2)
            self._operate("cycle", "feed", "extract", "poll")

    def _anything(self) -> None:
        """All operations in any order, with a little of everything."""
        dice = self.dice
        for _ in range(dice.choice((6, 8, 10))):
            if dice.random() < 0.7:
                self._change()
            self._wait()
            if dice.random() < 0.1:
                self._fault()
            self._disturb(dice.choice((0, 0, 1, 2)), crash=0.2, rival=0.1)
            self._operate(
                "cycle", "feed", "settle", "extract", "updated", "window", "poll", "verify", "restart"
            )
