"""Errors of the engines as Dagster failures that a person can act on.

Which layer repeats what: the HTTP client repeats single calls; `policy.RETRIES` repeats a step after an outage;
Dagster's `run_retries` only replaces crashed workers. What no repetition can cure fails at the first attempt.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from rally_pipeline.orchestration.diagnosis import Diagnosis, diagnose
from rally_pipeline.orchestration.progress import is_watched

LEASE_RETRIES = 20
LEASE_WAIT_SECONDS = 15


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn an engine's error into `dg.Failure` with one clear line; a defect keeps its traceback.

    A cancelled run is a `BaseException` and passes through.

    Raises:
        dagster.Failure: with `allow_retries=False` where a person must act first.
        dagster.RetryRequested: another writer holds the stream; the step waits for it.
    """
    try:
        yield
    except Exception as error:
        diagnosis = diagnose(error)
        if diagnosis is None:
            raise
        if _is_lease_held(error):
            raise dg.RetryRequested(max_retries=LEASE_RETRIES, seconds_to_wait=LEASE_WAIT_SECONDS) from error
        raise failure(error, diagnosis) from error


def failure(error: Exception, diagnosis: Diagnosis) -> dg.Failure:
    """The failure that the UI shows: what was wrong, where, what to do. Remote text stays plain text."""
    metadata: dict[str, dg.MetadataValue] = {
        "error": dg.MetadataValue.text(type(error).__name__),
        "needs_a_person": dg.MetadataValue.bool(diagnosis.mistake),
    }
    for name in ("system", "method", "path", "status", "excerpt"):
        value = getattr(error, name, None)
        if value is not None:
            metadata[name] = dg.MetadataValue.text(str(value))
    # A person or a cron job waits for the command and can repeat it: no minutes of pauses between attempts then.
    retry = diagnosis.repeatable and not is_watched()
    return dg.Failure(diagnosis.line, metadata=metadata, allow_retries=retry)


def _is_lease_held(error: Exception) -> bool:
    from rally_pipeline.warehouse.errors import LeaseHeld

    return isinstance(error, LeaseHeld)
