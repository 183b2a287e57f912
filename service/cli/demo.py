"""Command `engram demo`: five tasks learned over HTTP, and their old answers compared as bytes."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.cli import contact_sheet
from service.cli.digits import SIDE, DigitsTask, tasks
from service.lifecycle.processes import spawn, stop
from service.lifecycle.signals import Stopped, stop_on_signals, undisturbed_end

MODEL = "digits"
DEFINITION = {"name": MODEL, "backbone": "cnn", "input": {"channels": 1, "height": SIDE, "width": SIDE}}
SECONDS_TO_STOP = 12.0
PHASES = ("loading", "training", "pruning", "recovering", "freezing", "recognising", "verifying", "publishing")


class DemoError(Exception):
    """Something that did not happen as it must; the text says what."""


@dataclass
class DemoTask:
    """A learned task, with its logits and accuracy from then and its accuracies now."""

    task: DigitsTask
    logits: bytes
    accuracy: float
    seconds: float
    now: float = 0.0
    """Share of right labels, given the task's name."""
    found: float = 0.0
    """Share of right tasks and labels, with no task given."""
    retained: bool = field(default=True)


def run(output: Path) -> int:
    """Run the demonstration; returns the exit status, 0 if every old answer is still the same bytes."""
    console = Console(highlight=False)
    started = time.monotonic()
    stop_on_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="engram-demo-") as data, _stack(Path(data)) as address:
            console.print(f"Engram is running at {address}, with a Redis, a worker and a folder of its own.\n")
            with httpx.Client(base_url=address, timeout=60) as client:
                retained = _story(client, console, output)
    except Stopped:
        console.print("Stopped.")
        return 130
    except (DemoError, httpx.HTTPError) as error:
        console.print("[bold red]The demo failed:[/]")
        console.print(str(error), markup=False)
        return 1
    console.print(f"\nDone in {time.monotonic() - started:.0f} s; everything has been shut down.")
    console.print(
        "To see all of this in a browser: [bold]engram serve --data engram-data[/], then http://127.0.0.1:8000/ui/"
    )
    return 0 if retained else 1


@contextlib.contextmanager
def _stack(data: Path) -> Iterator[str]:
    """`engram serve` on a free port, until the block ends; yields its address."""
    with (data / "serve.log").open("wb") as log:
        process = spawn(
            [sys.executable, "-P", "-m", "service", "serve", "--data", str(data / "engram"), "--port", "0"],
            os.environ,
            stdout=subprocess.PIPE,
            stderr=log.fileno(),
        )
        with _stopped_afterwards(process):
            assert process.stdout is not None, "its output was asked for"
            line = process.stdout.readline().decode()
            if "listening on " not in line:
                raise DemoError(f"the stack did not start:\n{_tail(data)}")
            try:
                yield line.split()[-1]
            except (DemoError, httpx.HTTPError) as error:
                # The folder and the log in it are gone when anybody reads this.
                raise DemoError(f"{error}\n\nThe end of the log:\n{_tail(data)}") from error


def _tail(data: Path) -> str:
    return (data / "serve.log").read_text(encoding="utf-8", errors="replace")[-3000:]


@contextlib.contextmanager
def _stopped_afterwards(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop the process when the block ends, however it ends."""
    with process:
        try:
            with undisturbed_end():
                yield
        finally:
            stop(process, SECONDS_TO_STOP)


def _story(client: httpx.Client, console: Console, output: Path) -> bool:
    """Learn, compare, show; whether every old answer was retained each time."""
    _ask(client, "POST", "/v1/models", json=DEFINITION)
    console.print(f"Created the model [bold]{MODEL}[/]: a small CNN for grey images of {SIDE} x {SIDE} pixels.")
    learned: list[DemoTask] = []
    for number, task in enumerate(tasks(), 1):
        console.print(f"\n[bold]Task {number}: {task.name}[/]")
        seconds = _learn(client, console, task)
        _wait_for_version(client, number)
        logits, accuracy = _logits(client, task)
        learned.append(DemoTask(task, logits, accuracy, seconds))
        _compare(client, console, learned)
    console.print()
    console.print(_table(learned))
    console.print(_certificate(client, len(learned)))
    sheet = _heatmaps(client, learned, output)
    console.print(f"Heatmaps: {sheet} and {len(list(output.glob('*.png'))) - 1} single ones beside it.")
    return all(one.retained for one in learned)


def _ask(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    response = client.request(method, path, **options)
    if response.is_error:
        raise DemoError(f"{method} {path} was answered {response.status_code}: {response.text}")
    return response


def _learn(client: httpx.Client, console: Console, task: DigitsTask) -> float:
    """Upload a task, follow its job to the end; returns seconds."""
    started = time.monotonic()
    upload = {"data": (f"{task.name}.zip", task.archive, "application/zip")}
    accepted = _ask(client, "POST", f"/v1/models/{MODEL}/tasks", data={"name": task.name}, files=upload)
    location = accepted.headers["Location"]
    columns = TextColumn("  {task.description:<12}"), BarColumn(32), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, TextColumn("{task.fields[figures]}"), console=console) as progress:
        bar = progress.add_task("queued", total=len(PHASES), figures="")
        for event in _events(client, f"{location}/events"):
            phase = event.get("phase")
            if phase in PHASES:
                figures = event.get("progress") or event
                share = PHASES.index(phase) + (figures.get("fraction") or 0.0)
                progress.update(bar, description=phase, completed=share, figures=_figures(figures))
        job = _ask(client, "GET", location).json()
        if job["state"] == "succeeded":
            progress.update(bar, description="learned", completed=len(PHASES))
    if job["state"] != "succeeded":
        raise DemoError(f"the job for {task.name} ended as {job['state']}: {job['error']}")
    return time.monotonic() - started


def _figures(figures: dict[str, Any]) -> str:
    shown = []
    if figures.get("epoch") is not None:
        shown.append(f"epoch {figures['epoch']}")
    if figures.get("accuracy") is not None:
        shown.append(f"held-out accuracy {figures['accuracy']:.3f}")
    if figures.get("units") is not None:
        shown.append(f"{figures['units']} units")
    return ", ".join(shown)


def _events(client: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    """The job's server-sent events, until the service ends the stream."""
    with client.stream("GET", path, timeout=httpx.Timeout(60, connect=5)) as response:
        if response.is_error:
            raise DemoError(f"GET {path} was answered {response.status_code}")
        for line in response.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line.removeprefix("data:"))
                if isinstance(event, dict):
                    yield event


def _wait_for_version(client: httpx.Client, version: int) -> None:
    """Until this service answers with the version that the job has published."""
    deadline = time.monotonic() + 10
    while _ask(client, "GET", f"/v1/models/{MODEL}").json()["version"] < version:
        if time.monotonic() > deadline:
            raise DemoError(f"version {version} did not go live within 10 s")
        time.sleep(0.05)


def _predict(client: httpx.Client, task: DigitsTask, query: dict[str, str]) -> list[dict[str, Any]]:
    images = [("image", (f"{number}.png", png, "image/png")) for number, (png, _) in enumerate(task.held_out)]
    answer = _ask(client, "POST", f"/v1/models/{MODEL}/predict", params=query, files=images).json()
    predictions: list[dict[str, Any]] = answer["predictions"]
    if len(predictions) != len(images) or any("error" in one for one in predictions):
        raise DemoError(f"not every image of {task.name} was answered")
    return predictions


def _logits(client: httpx.Client, task: DigitsTask) -> tuple[bytes, float]:
    """The task's own logits of its held-out images as float32 bytes, and the share of right labels."""
    predictions = _predict(client, task, {"task": task.name, "logits": "true"})
    logits = b"".join(struct.pack(f"<{len(one['logits'])}f", *one["logits"]) for one in predictions)
    right = sum(one["label"] == label for one, (_, label) in zip(predictions, task.held_out, strict=True))
    return logits, right / len(predictions)


def _compare(client: httpx.Client, console: Console, learned: list[DemoTask]) -> None:
    """Ask everything again: by name, for the bytes, and with no task given, for the recognition."""
    for one in learned:
        logits, one.now = _logits(client, one.task)
        answers = zip(_predict(client, one.task, {}), one.task.held_out, strict=True)
        right = sum((found["task"], found["label"]) == (one.task.name, label) for found, (_, label) in answers)
        one.found = right / len(one.task.held_out)
        if one is learned[-1]:
            console.print(f"  {one.task.name:<12} learned in {one.seconds:.1f} s, accuracy {one.accuracy:.1%}")
        else:
            same = logits == one.logits
            one.retained = one.retained and same
            verdict = "[green]retained: identical[/]" if same else "[bold red]retained: DIFFERENT[/]"
            console.print(f"  {one.task.name:<12} {verdict} ({len(logits)} bytes of logits)")


def _table(learned: list[DemoTask]) -> Table:
    table = Table(title="Accuracy on held-out images")
    for heading in ("task", "when learned", "now", "now, no task given", "old answers"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for one in learned:
        same = "identical" if one.retained else "[bold red]DIFFERENT[/]"
        table.add_row(one.task.name, f"{one.accuracy:.1%}", f"{one.now:.1%}", f"{one.found:.1%}", same)
    images = sum(len(one.task.held_out) for one in learned)
    means = [
        sum(getattr(one, name) * len(one.task.held_out) for one in learned) / images
        for name in ("accuracy", "now", "found")
    ]
    table.add_section()
    table.add_row(f"{images} images", *(f"{mean:.1%}" for mean in means), "")
    return table


def _certificate(client: httpx.Client, version: int) -> str:
    """One line: the digests of the newest certificate, and whether the one before has the same of the older tasks."""
    before, after = (
        {
            row["task"]: row["logits_sha256"]
            for row in _ask(client, "GET", f"/v1/models/{MODEL}/versions/{number}/certificate").json()["tasks"]
        }
        for number in (version - 1, version)
    )
    agree = all(after.get(task) == digest for task, digest in before.items())
    newest = ", ".join(f"{task} {digest[:8]}" for task, digest in after.items())
    verdict = "agrees" if agree else "[bold red]DISAGREES[/]"
    return f"Certificate of version {version} ({newest}) {verdict} with that of version {version - 1}."


def _heatmaps(client: httpx.Client, learned: list[DemoTask], output: Path) -> Path:
    """Explain the first well-answered image of each digit; writes single overlays and one sheet."""
    output.mkdir(parents=True, exist_ok=True)
    rows: list[contact_sheet.Row] = []
    for one in learned:
        answers = _predict(client, one.task, {})
        for label in dict.fromkeys(label for _, label in one.task.held_out):
            pairs = zip(answers, one.task.held_out, strict=True)
            png, answer = max(
                ((image, found) for found, (image, truth) in pairs if truth == label),
                key=lambda pair: pair[1]["task_probability"] * (pair[1]["label"] == label),
            )
            heatmap, overlay = (_explain(client, png, kind) for kind in ("heatmap", "overlay"))
            (output / f"{label}.png").write_bytes(overlay)
            lines = (
                f"task {answer['task']}",
                f"label {answer['probability']:.1%}, task {answer['task_probability']:.1%}",
                f"truth: {label}",
            )
            rows.append(contact_sheet.Row(png, heatmap, overlay, answer["label"], lines))
    sheet = output / "heatmaps.png"
    contact_sheet.draw(rows, "Which pixels spoke for the answer (red) and against it (blue)", sheet)
    return sheet


def _explain(client: httpx.Client, png: bytes, kind: str) -> bytes:
    headers = {"Content-Type": "image/png"}
    return _ask(
        client, "POST", f"/v1/models/{MODEL}/explain", params={"format": kind}, content=png, headers=headers
    ).content
