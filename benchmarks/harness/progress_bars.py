"""Progress bars of a run: its tasks, and the phase of the current one."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Display

from benchmarks.harness.plan import Plan
from engram.checkpointing.progress import Progress


class ProgressBars:
    """Two progress bars on a terminal; a line for every task in a file or pipe."""

    def __init__(self, plan: Plan, tasks: int) -> None:
        self._title = f"{plan.benchmark} {plan.method} seed {plan.seed}"
        self._tasks = tasks
        self._terminal = sys.stdout.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._display = Display(*columns, console=Console(), disable=not self._terminal)
        self._run = self._display.add_task(self._title, total=tasks)
        self._task = self._display.add_task("", total=1.0)

    def __enter__(self) -> ProgressBars:
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def watch(self, number: int, progress: Progress | None) -> None:
        """Show the progress of task `number`; None when it is learned and evaluated."""
        if progress is not None:
            text = progress.phase
            text += "" if progress.epoch is None else f", epoch {progress.epoch}"
            text += "" if progress.accuracy is None else f", {progress.accuracy:.1%} right"
            self._display.update(self._task, description=f"task {number}: {text}", completed=progress.fraction)
            self._display.update(self._run, completed=number + progress.fraction)
            return
        self._display.update(self._run, completed=number + 1)
        self._display.update(self._task, description=f"task {number}: judged", completed=1.0)
        if not self._terminal:
            print(f"{self._title}: task {number + 1} of {self._tasks} learned", flush=True)
