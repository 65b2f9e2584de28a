"""What a system's catch-up works with: settings, Dagster's instance, and the record of what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rally_pipeline.cli.failures import CommandFailed
from rally_pipeline.cli.stopping import stopped_by_signals
from rally_pipeline.orchestration.progress import Progress
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from dagster import AssetKey, DagsterInstance, Definitions

    from rally_pipeline.orchestration.headless import StepFailure


@dataclass
class SyncSession:
    """One `sync`. `wait`: settle every mark that is found, also the fresh ones."""

    settings: Settings
    instance: DagsterInstance
    definitions: Definitions
    progress: Progress
    wait: bool
    failures: list[StepFailure] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Figures to show at the end."""

    def run(
        self,
        job_name: str,
        *,
        tags: Mapping[str, str] | None = None,
        ops: Mapping[str, Any] | None = None,
        assets: Sequence[AssetKey] | None = None,
    ) -> bool:
        """Execute a job here and now; its failures are kept. Returns whether it succeeded.

        Raises:
            CommandFailed: the command was told to stop.
        """
        from rally_pipeline.orchestration.headless import TOLD_TO_STOP, execute
        from rally_pipeline.orchestration.progress import watched

        with watched(self.progress):
            outcome = execute(self.definitions, job_name, self.instance, tags=tags, ops=ops, assets=assets)
        self.failures.extend(outcome.failures)
        if outcome.interrupted:
            raise CommandFailed(TOLD_TO_STOP)
        return outcome.succeeded


CatchUp = Callable[[SyncSession], None]
"""One system's part of `sync`: it runs jobs through `session.run`, which keeps their failures."""


@contextmanager
def open_session(settings: Settings, progress: Progress, *, wait: bool) -> Iterator[SyncSession]:
    """Prepare Dagster's home, end the runs of killed commands, and load the definitions of what is configured.

    Raises:
        CommandFailed: a signal told the command to stop.
    """
    from rally_pipeline.orchestration.headless import TOLD_TO_STOP
    from rally_pipeline.orchestration.home import dagster_home, open_instance, prepare_home
    from rally_pipeline.orchestration.runs import end_dead_runs
    from rally_pipeline.rooms import build

    home = dagster_home(settings)
    with stopped_by_signals(TOLD_TO_STOP):
        prepare_home(home)
        with open_instance(home) as instance:
            end_dead_runs(instance)
            yield SyncSession(settings, instance, build(settings, announce=False), progress, wait)
