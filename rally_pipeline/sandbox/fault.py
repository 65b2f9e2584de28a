"""The shape of a fault: a function that gets the exchange under way and gives the answer that the client
meets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .wire import Answer, Call


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request on its way to an API. `apply()` lets the API handle it and gives its honest answer; a fault
    that never calls it leaves the request unapplied.
    """

    call: Call
    apply: Callable[[], Answer]


FaultFunction = Callable[..., Answer]
"""`fault(exchange, *, …)`; the keyword parameters are the parameters of the fault and all have defaults."""
