"""One job run inside this process, recorded in Dagster's storage so that the UI shows it like any other run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rally_pipeline.orchestration.home import PROCESS_TAG

if TYPE_CHECKING:
    from dagster import AssetKey, DagsterInstance, Definitions
    from dagster._core.events import DagsterEvent


_INTERRUPTED = "DagsterExecutionInterruptedError"
"""What Dagster makes of SIGINT and SIGTERM within a step."""


@dataclass(frozen=True, slots=True)
class StepFailure:
    """Why a step failed, in one line; `mistake`: a person must change something first."""

    step: str
    line: str
    mistake: bool


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended."""

    run_id: str
    succeeded: bool
    failures: tuple[StepFailure, ...]


def execute(
    definitions: Definitions,
    job_name: str,
    instance: DagsterInstance,
    *,
    tags: Mapping[str, str] | None = None,
    ops: Mapping[str, Any] | None = None,
    assets: Sequence[AssetKey] | None = None,
) -> RunOutcome:
    """Run the job to its end. A failing step does not stop steps that do not depend on it."""
    result = definitions.resolve_job_def(job_name).execute_in_process(
        instance=instance,
        tags={**(tags or {}), PROCESS_TAG: str(os.getpid())},
        run_config={"ops": dict(ops or {}), "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        asset_selection=assets,
        raise_on_error=False,
    )
    failures = tuple(_failure_of(event) for event in result.all_events if event.is_step_failure)
    return RunOutcome(result.run_id, result.success, failures)


def _failure_of(event: DagsterEvent) -> StepFailure:
    data = event.step_failure_data
    step = event.step_key or "run"
    if data.user_failure_data is not None and data.user_failure_data.description:
        mistake = data.user_failure_data.metadata.get("needs_a_person")
        return StepFailure(step, data.user_failure_data.description, bool(mistake and mistake.value))
    if data.error is not None and data.error.cls_name == _INTERRUPTED:
        return StepFailure(
            step, "told to stop; what was committed stays, the next run goes on from there", False
        )
    message = data.error.message if data.error is not None else "failed"
    cause = data.error.cause if data.error is not None else None
    while cause is not None:
        message, cause = cause.message, cause.cause
    return StepFailure(step, " ".join(message.split()), mistake=False)
