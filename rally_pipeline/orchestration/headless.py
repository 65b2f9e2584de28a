"""One job run inside this process, recorded in Dagster's storage so that the UI shows it like any other run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import AssetKey, DagsterInstance, Definitions
    from dagster._core.events import DagsterEvent

_INTERRUPTED = "DagsterExecutionInterruptedError"
"""What Dagster makes of SIGINT and SIGTERM within a step."""
TOLD_TO_STOP = "told to stop; what was committed stays, the next run goes on from there"


@dataclass(frozen=True, slots=True)
class StepFailure:
    """Why a step failed, in one line; `mistake`: a person must change something first."""

    step: str
    line: str
    mistake: bool


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended; `interrupted`: by a signal, so nothing more must be begun."""

    run_id: str
    succeeded: bool
    interrupted: bool
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
    """Run the job to its end. A failing step does not stop steps that do not depend on it.

    Raises:
        KeyboardInterrupt: a signal came between two steps.
    """
    from dagster import DagsterExecutionInterruptedError

    from rally_pipeline.orchestration.runs import process_tag

    try:
        result = definitions.resolve_job_def(job_name).execute_in_process(
            instance=instance,
            tags={**(tags or {}), **process_tag()},
            run_config={
                "ops": dict(ops or {}),
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            asset_selection=assets,
            raise_on_error=False,
        )
    except DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None
    failed = [event for event in result.all_events if event.is_step_failure]
    return RunOutcome(
        result.run_id,
        result.success,
        interrupted=any(_is_interrupted(event) for event in failed),
        failures=tuple(_failure_of(event) for event in failed),
    )


def _is_interrupted(event: DagsterEvent) -> bool:
    error = event.step_failure_data.error
    return error is not None and error.cls_name == _INTERRUPTED


def _failure_of(event: DagsterEvent) -> StepFailure:
    data = event.step_failure_data
    step = event.step_key or "run"
    if data.user_failure_data is not None and data.user_failure_data.description:
        mistake = data.user_failure_data.metadata.get("needs_a_person")
        return StepFailure(step, data.user_failure_data.description, bool(mistake and mistake.value))
    if _is_interrupted(event):
        return StepFailure(step, TOLD_TO_STOP, mistake=False)
    message = data.error.message if data.error is not None else "failed"
    cause = data.error.cause if data.error is not None else None
    while cause is not None:
        message, cause = cause.message, cause.cause
    return StepFailure(step, " ".join(message.split()), mistake=False)
