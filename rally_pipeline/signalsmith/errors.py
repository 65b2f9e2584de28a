"""What can go wrong beyond a single call, each as one clear line that says what the remote run does meanwhile."""

from __future__ import annotations

from datetime import datetime

from rally_pipeline.signalsmith.records import Run


class SignalSmithError(Exception):
    """Something that a person has to deal with, or that ended the remote run."""


class SyncGone(SignalSmithError):
    """The sync does not exist in SignalSmith any more."""


class OwnershipRefused(SignalSmithError):
    """Dagster may not trigger this sync as things stand."""


class NothingToAttach(SignalSmithError):
    """The sync is only observed and there is no run to follow."""


class RunNotSucceeded(SignalSmithError):
    """The remote run ended as failed or cancelled; `run` has the details."""

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


class RunVanished(SignalSmithError):
    """The run can no longer be read, so its outcome is unknown."""


class RunStuck(SignalSmithError):
    """The run did not end within its deadline."""


class TriggerUnknown(SignalSmithError):
    """It cannot be told whether or which run a trigger started."""


class CatalogShrunk(SignalSmithError):
    """More than half of the syncs are missing at once; nothing was changed."""

    def __init__(self, before: int, now: int, kept_aside: str) -> None:
        super().__init__(
            f"SignalSmith lists {now} syncs where it listed {before} before: not believed, nothing was changed. "
            f"The new list is in {kept_aside}; if it is right, run "
            "`rally-pipeline signalsmith refresh --accept-shrink`"
        )
        self.before = before
        self.now = now


def when(instant: datetime | None) -> str:
    """An instant for a message."""
    return "an unknown time" if instant is None else f"{instant:%Y-%m-%d %H:%M:%S} UTC"
