"""Switches of the simulated Sell API; each may be given at the start or changed at any time (`switch`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from rally_pipeline.sandbox.api import ControlError

ALL_SCOPES = ("sync", "read", "profile", "write")


@dataclass
class SellOptions:
    """What the real service leaves open, or gets wrong at times. Defaults are the documented behaviour."""

    records: int = 600
    """Objects at the start, over all types (only at construction)."""
    unknown_type_records: int = 2
    """Objects of a type that no documentation lists (only at construction)."""
    page_size: int = 50
    """Items on a page of the queue; not documented for the real service, so never to be relied on."""
    empty_every: int = 0
    """Each n-th answer of the queue is an empty page; 0: none."""
    only_empty: bool = False
    """The queue answers with empty pages for ever."""
    shuffle: bool = True
    """Items come in no order at all, as documented."""
    duplicate_share: float = 0.0
    """Share of items that come a second time in the same session."""
    older_share: float = 0.0
    """Share of items beside which an older state of the same object comes in the same session: a state with a lower
    revision behind one with a higher, or the last one before a delete behind the delete."""
    fixed_at: Literal["start", "fetch"] = "fetch"
    """Whether an item shows the state at the session's start or at the fetch."""
    grows: bool = False
    """Whether objects that change during a session join it."""
    counts_lie: bool = False
    """`pages`, `total_count` and `count_left` are wrong."""
    ack_delay_seconds: float = 0.0
    """Sandbox time until an acknowledgement takes effect."""
    ack_limit: int | None = None
    """Most keys in one acknowledgement; more are refused."""
    ack_limit_status: int = 422
    redeliver_failed: bool = False
    """Whether an object listed in `failed_objects` comes again by itself."""
    delete_unknown: bool = True
    """Whether deletes of objects that the device never had are announced, if born after the device."""
    session_seconds: float | None = None
    """Age at which a session is gone."""
    session_fetches: int | None = None
    """Number of fetches after which a session is gone."""
    session_limit: int = 100
    session_limit_status: int = 429
    session_idle_seconds: float = 3600.0
    """An open session that nobody fetches from stops counting as active after this time."""
    lost_session_status: int = 404
    scopes: tuple[str, ...] = ALL_SCOPES
    retired: bool = False
    """Every call answers 410, as after the end of the product."""
    lag_seconds: float = 0.0
    """REST reads show the state of this long ago, as a lagging replica."""
    ids_filter: bool = True
    """Whether list endpoints know the `ids` parameter; off: it is ignored."""
    strict_token: bool = True
    """Only tokens of 64 characters without blanks are well formed."""
    limit_per_second: int | None = 10
    limit_per_hour: int | None = 36_000
    retry_after: bool = False
    """Whether a 429 carries `Retry-After`; the documentation promises no header."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> SellOptions:
        """Options from plain values. Raises `ControlError` for an unknown name or an unusable value."""
        options = cls()
        options.change(given)
        return options

    def change(self, given: Mapping[str, Any]) -> None:
        """Set the options that are named; all or none. Raises `ControlError`."""
        known = {option.name for option in fields(self)}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ControlError(
                f"Sell has no option {', '.join(unknown)}: choose from {', '.join(sorted(known))}"
            )
        values = {name: tuple(value) if name == "scopes" else value for name, value in given.items()}
        for name, value in values.items():
            _check(name, value)
        for name, value in values.items():
            setattr(self, name, value)


_CHOICES: dict[str, tuple[object, ...]] = {"fixed_at": ("start", "fetch")}
_POSITIVE = frozenset({"page_size", "session_limit"})
_OPTIONAL = frozenset(
    {"ack_limit", "session_seconds", "session_fetches", "limit_per_second", "limit_per_hour"}
)
_DEFAULTS = {option.name: option.default for option in fields(SellOptions)}


def _check(name: str, value: object) -> None:
    default = _DEFAULTS[name]
    if name in _CHOICES:
        fits = value in _CHOICES[name]
    elif name == "scopes":
        fits = isinstance(value, tuple) and set(value) <= set(ALL_SCOPES)
    elif isinstance(default, bool):
        fits = isinstance(value, bool)
    elif value is None:
        fits = name in _OPTIONAL
    else:
        least = 1 if name in _POSITIVE else 0
        fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= least
    if not fits:
        raise ControlError(f"Sell's option {name} cannot be {value!r}")
