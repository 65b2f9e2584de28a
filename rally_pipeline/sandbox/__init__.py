"""The simulated APIs: stateful, deterministic by seed, with their own clock, on loopback or in process."""

from .api import Api, ControlError, lines_of
from .application import Sandbox
from .clock import SandboxClock, SkewedClock
from .control_client import SandboxControl
from .limiter import Admission, FixedWindow, Limiter, SeveralWindows, Unlimited
from .matching import RequestMatch
from .server import SandboxServer
from .transport import SandboxTransport
from .wire import Answer, Call, Delivery, MalformedBodyError, WireFault

__all__ = [
    "Admission",
    "Answer",
    "Api",
    "Call",
    "ControlError",
    "Delivery",
    "FixedWindow",
    "Limiter",
    "MalformedBodyError",
    "RequestMatch",
    "Sandbox",
    "SandboxClock",
    "SandboxControl",
    "SandboxServer",
    "SandboxTransport",
    "SeveralWindows",
    "SkewedClock",
    "Unlimited",
    "WireFault",
    "lines_of",
]
