"""What can stop a drain, each as one line that says what to do."""

from __future__ import annotations

from rally_pipeline.http.errors import ApiError, Forbidden, NotFound, Rejected, Throttled
from rally_pipeline.settings import SettingsError


class DeviceMismatch(SettingsError):
    """`SELL_DEVICE_UUID` is not the device whose acknowledgements this warehouse stands behind."""


class WrongAccount(SettingsError):
    """The token belongs to another Sell account than the one that this warehouse mirrors."""


class ApiRetired(Rejected):
    """The Sync API answers 410."""


class SessionLimitReached(Rejected):
    """No session can be started, because too many are open."""


def explain_start(error: ApiError) -> ApiError:
    """The error of a start that was refused, in words for a person."""
    if isinstance(error, NotFound) and error.gone:
        return _restated(
            error, ApiRetired, "the Sync API has been retired: nothing more can be read from Sell"
        )
    if "session" in error.excerpt.lower():
        return _restated(
            error,
            SessionLimitReached,
            "no session could be started: at most 100 can be open at a time; they close by themselves, so let"
            " the schedule try again, and look for another consumer that starts sessions",
        )
    if isinstance(error, Throttled):
        error.detail = f"{error.detail}: over the rate limit, or too many sessions are open"
        return error
    return explain_scope(error, "sync") if isinstance(error, Forbidden) else error


def explain_scope(error: ApiError, scope: str) -> ApiError:
    """A 403 that names the scope that the token needs."""
    return _restated(error, Forbidden, f"the token lacks the scope `{scope}`")


def _restated(error: ApiError, kind: type[ApiError], detail: str) -> ApiError:
    return kind(
        error.system, error.method, error.path, status=error.status, detail=detail, excerpt=error.excerpt
    )
