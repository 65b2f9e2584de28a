"""What a command shows: results on stdout; progress and remarks on stderr, so that `--json` stays clean."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

results = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
remarks = Console(stderr=True, highlight=False)


class StreamBars:
    """One progress bar per stream; a callback `(stream, done, total)`. Silent where stderr is no terminal."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=32),
            TextColumn("{task.completed:>9,.0f}"),
            TextColumn("{task.fields[of]}"),
            TimeElapsedColumn(),
            console=remarks,
            disable=not remarks.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> StreamBars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, stream: str, done: int, total: int | None) -> None:
        of = f"of {total:,}" if total is not None else ""
        if stream not in self._tasks:
            self._tasks[stream] = self._bars.add_task(stream, total=total, of=of)
        self._bars.update(self._tasks[stream], completed=done, total=total, of=of)

    def finish(self, stream: str) -> None:
        """Show the stream as done."""
        task = self._tasks.get(stream)
        if task is not None:
            completed = self._bars.tasks[self._bars.task_ids.index(task)].completed
            self._bars.update(task, total=completed or 1, completed=completed or 1, of="done")
