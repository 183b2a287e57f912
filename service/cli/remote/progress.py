"""Progress of an upload and of a job, on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from service.cli.remote.connection import INTERRUPTED
from service.cli.tables import print_json

if TYPE_CHECKING:
    from engram_client import JobRecord, JobUpdate, LearningJob

_BARS = "▁▂▃▄▅▆▇█"
_SENDING = "sending"
_CURVE = 24
"""How many of the latest losses are shown."""


class JobDisplay:
    """Display of one job, and before it of the upload of its data.

    Parameters
    ----------
    quiet
        Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        figures = TextColumn("{task.fields[figures]}")
        columns = TextColumn("{task.description:<12}"), BarColumn(32), TaskProgressColumn(), TimeElapsedColumn()
        self._progress = Progress(*columns, figures, console=self._console, disable=not self._console.is_terminal)
        self._bar = self._progress.add_task("", total=1.0, figures="", visible=False)
        self._phase = ""
        self._losses: deque[float] = deque(maxlen=_CURVE)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def sent(self, done: int, total: int) -> None:
        """Show how much of an upload is sent."""
        self._enter(_SENDING)
        size = f"{done / 2**20:.1f} of {total / 2**20:.1f} MiB"
        self._progress.update(self._bar, completed=min(done / max(total, 1), 1.0), figures=size)

    def accepted(self, job: LearningJob) -> None:
        """Say which job it is, by which it is found again."""
        self._console.print(f"The job {job.id} is {job.record.state}.")

    def show(self, update: JobUpdate) -> None:
        """Show an event of the job."""
        self._enter(update.phase or update.state or self._phase)
        if update.loss is not None:
            self._losses.append(update.loss)
        done = 1.0 if update.state == "succeeded" else update.fraction
        self._progress.update(self._bar, completed=done, figures=self._figures(update))

    def _enter(self, phase: str) -> None:
        if phase == self._phase:
            return
        if self._phase in ("", _SENDING):  # the time of the job is not that of the upload
            self._progress.reset(self._bar, visible=True, figures="")
        self._phase = phase
        self._losses.clear()
        self._progress.update(self._bar, description=phase)
        if not self._console.is_terminal:
            self._console.print(phase)

    def _figures(self, update: JobUpdate) -> str:
        shown = [] if update.epoch is None else [f"epoch {update.epoch}"]
        if self._losses:
            shown.append(f"loss {curve(list(self._losses))} {self._losses[-1]:.3g}")
        if update.accuracy is not None:
            shown.append(f"accuracy {update.accuracy:.1%}")
        return ", ".join(shown)


class SendData(Protocol):
    """Sending of a job's data, of which `on_sent` is told how far it is."""

    def __call__(self, *, on_sent: Callable[[int, int], None]) -> LearningJob: ...


def submit(send: SendData, end: Callable[[JobRecord, bool], None] | None, as_json: bool) -> None:
    """Send a job's data and say which job it is; follow it where there is an `end` to be shown of it."""
    with JobDisplay(quiet=as_json) as display:
        try:
            job = send(on_sent=display.sent)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        if end is not None:
            display.accepted(job)
            follow_job(job, display)
    if end is not None:
        end(job.record, as_json)
    elif as_json:
        print_json(job.record.raw)
    else:
        typer.echo(f"The job {job.id} is {job.record.state}: engram jobs follow {job.id}")


def follow_job(job: LearningJob, display: JobDisplay, *, print_events: bool = False) -> None:
    """Show a job's events until its last one; an interruption leaves the job alone, and says so."""
    try:
        for update in job.follow():
            if print_events:
                typer.echo(json.dumps(dict(update.raw), ensure_ascii=False))
            display.show(update)
    except KeyboardInterrupt as error:
        typer.echo(f"\nThe job goes on: engram jobs follow {job.id}", err=True)
        raise typer.Exit(INTERRUPTED) from error


def curve(values: list[float]) -> str:
    """Values as a line of bars, the least the lowest."""
    least, most = min(values), max(values)
    step = (most - least) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[round((value - least) / step)] for value in values)
