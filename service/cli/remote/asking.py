"""Commands `engram predict`, `engram explain` and `engram novelty`: questions to a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.remote.connection import REFUSED, ApiKey, ModelArgument, ModelOption, Url, connected
from service.cli.tables import cell, moment, print_facts, print_json, print_table
from service.cli.vault import AsJson

if TYPE_CHECKING:
    from engram_client import ImageAnswer, ImageFailure

Task = Annotated[str | None, typer.Option("--task", "-t", help="The task that is meant; by default all are asked.")]
Version = Annotated[int | None, typer.Option(min=0, help="By default the one that is served.")]


def predict(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Images; - is standard input.")],
    model: ModelOption,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, max=100, help="How many labels to show.")] = 1,
    task: Task = None,
    version: Version = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask what images show; the exit status is 1 where one of them cannot be read."""
    from engram_client import ImageAnswer

    with connected(url, key) as client:
        found = client.predict_many(model, map(_image, files), top_k=top_k, task=task, version=version)
    if as_json:
        print_json([{"file": file, **one.raw} for file, one in zip(files, found, strict=True)])
    else:
        heads = ("TASK", "LABEL", "PROBABILITY", "KNOWN", "NOVELTY", *(("TOP",) if top_k > 1 else ()), "FILE")
        print_table(heads, [(*_row(one, top_k), file) for file, one in zip(files, found, strict=True)])
    if not all(isinstance(one, ImageAnswer) for one in found):
        raise typer.Exit(REFUSED)


def explain(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Images; - is standard input.")],
    model: ModelOption,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The PNG to write, of one image; by default FILE-heatmap.png, here."),
    ] = None,
    format: Annotated[str, typer.Option(help="overlay on the image, or the heatmap alone.")] = "overlay",
    target: Annotated[str | None, typer.Option(help="The label to explain; by default the predicted one.")] = None,
    task: Task = None,
    version: Version = None,
    composite: Annotated[str | None, typer.Option(help="Rules of layer-wise relevance propagation.")] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers, and write no picture.")] = False,
) -> None:
    """Draw the heatmaps of answers: which pixels speak for their labels."""
    if output is not None and len(files) > 1:
        raise typer.BadParameter("--output is for one image.")
    # Not beside the image: what lies in the folder of a class is learned from.
    names = [output or Path(f"{'stdin' if file == '-' else Path(file).stem}-heatmap.png") for file in files]
    if not as_json and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise typer.BadParameter(f"two of the images would be drawn in {twice}; ask for each, with --output.")
    asked = "json" if as_json else format
    numbers = []
    with connected(url, key) as client:
        for file, name in zip(files, names, strict=True):
            found = client.explain(
                model, _image(file), format=asked, target=target, task=task, version=version, composite=composite
            )
            if as_json:
                numbers.append({"file": file, **(found.numbers or {})})
                continue
            saved = found.save(name)
            typer.echo(f"{saved}: why {found.label} of {found.task}, version {found.version}")
    if as_json:
        print_json(numbers)


def novelty(model: ModelArgument, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Tell whether the images that come in are of tasks that the model knows."""
    with connected(url, key) as client:
        found = client.novelty(model)
    if as_json:
        print_json(found.raw)
        return
    print_facts(
        [
            ("state", found.state),
            ("since", moment(found.since)),
            ("version", found.version),
            ("images", found.samples),
            ("unknown", f"{found.unknown} ({found.unknown_share:.1%})"),
            ("drift", None if found.welch is None else found.welch.drift),
            ("alarm", None if found.cusum is None else found.cusum.raised),
        ]
    )


def _image(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _row(one: ImageAnswer | ImageFailure, top_k: int) -> tuple[object, ...]:
    from engram_client import ImageFailure

    if isinstance(one, ImageFailure):
        return (None, one.code, None, None, None, *((None,) if top_k > 1 else ()))
    top = ", ".join(f"{candidate.label} {cell(candidate.probability)}" for candidate in one.top)
    return (one.task, one.label, one.probability, one.known, one.novelty, *((top,) if top_k > 1 else ()))
