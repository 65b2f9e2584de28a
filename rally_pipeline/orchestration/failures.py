"""Errors of the engines as Dagster failures that a person can act on.

Which layer repeats what: the HTTP client repeats single calls; `clear_failures` asks for another attempt of a step
after an outage; Dagster's `run_retries` only replaces crashed workers. What no repetition can cure fails at the first
attempt.

No step has a `RetryPolicy`: it also answers an interrupt with another attempt (`op_execution_error_boundary` in
Dagster), so that a run which somebody cancels would go on.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from rally_pipeline.orchestration.diagnosis import Diagnosis, diagnose
from rally_pipeline.orchestration.progress import is_watched

OUTAGE_RETRIES = 2
OUTAGE_WAIT_SECONDS = 60
"""The HTTP client has already repeated what may be repeated; these attempts are for outages of minutes."""


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn an engine's error into `dg.Failure` with one clear line; a defect keeps its traceback.

    A cancelled run is a `BaseException` and passes through.

    Raises:
        dagster.Failure: a person must act first, or somebody waits for the run and can repeat it.
        dagster.RetryRequested: the step is tried again after an outage.
    """
    try:
        yield
    except Exception as error:
        diagnosis = diagnose(error)
        if diagnosis is None:
            raise
        problem = failure(error, diagnosis)
        # A person or a cron job waits for the command and can repeat it: no minutes of pauses between attempts then.
        # A stream that another run works on was waited for already.
        if not diagnosis.repeatable or is_watched() or _is_lease_held(error):
            raise problem from error
        problem.__cause__ = error
        raise dg.RetryRequested(max_retries=OUTAGE_RETRIES, seconds_to_wait=OUTAGE_WAIT_SECONDS) from problem


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
    return dg.Failure(diagnosis.line, metadata=metadata, allow_retries=False)


def _is_lease_held(error: Exception) -> bool:
    from rally_pipeline.warehouse.errors import LeaseHeld

    return isinstance(error, LeaseHeld)
