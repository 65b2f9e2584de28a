"""The simulated SignalSmith API: its own scheduler, and runs that progress, fail, hang and vanish."""

from .api import SignalSmithApi

__all__ = ["SignalSmithApi"]
