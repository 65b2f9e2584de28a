"""Repeat a step after an outage, but let a cancelled run be cancelled.

A `RetryPolicy` on a step also answers an interrupt with another attempt (`op_execution_error_boundary` in Dagster),
so that a run which somebody cancels goes on. Here only errors that may pass by themselves ask for another attempt.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.failures import clear_failures


@contextmanager
def repeated_failures() -> Iterator[None]:
    """Like `clear_failures`, with the attempts and pauses of `policy.RETRIES` and without its answer to an interrupt.

    Raises:
        dagster.Failure: a person must act first.
        dagster.RetryRequested: the step is tried again.
    """
    try:
        with clear_failures():
            yield
    except dg.Failure as failure:
        if not failure.allow_retries:
            raise
        raise dg.RetryRequested(
            max_retries=policy.RETRIES.max_retries, seconds_to_wait=policy.RETRIES.delay
        ) from failure
