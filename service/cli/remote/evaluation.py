"""Command `engram evaluate`: versions on labelled images, and the answers in which two differ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.remote.connection import REFUSED, ApiKey, ModelOption, Url, connected, given_data
from service.cli.tables import cell, print_json, print_table
from service.cli.vault import AsJson

if TYPE_CHECKING:
    from engram_client import JobRecord

_MOST_SHOWN = 20
"""Images with other answers that are shown to people."""


def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of <label>/<image> or <task>/<label>/<image>, of which test/ alone is taken where there "
            "is train/ as well; a CSV of path and label; a zip or tar; or an address (s3://...).",
        ),
    ],
    model: ModelOption,
    versions: Annotated[
        str | None,
        typer.Option("--versions", "-v", metavar="N[,N]", help="One, or two to compare; by default what is served."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="The task of all images; by default their folders say it.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for the end, and show what was found.")] = False,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Have versions answer labelled images, and show how right they are and where two differ. Nothing is changed."""
    from service.cli.remote.progress import submit

    numbers = None if versions is None else _numbers(versions)
    with connected(url, key) as client:
        found = given_data(data, "evaluate")
        send = partial(client.evaluate, model, found, versions=numbers, task=task)
        submit(send, end_evaluation if follow else None, as_json)


def end_evaluation(record: JobRecord, as_json: bool) -> None:
    """What came of an evaluation that is over; raises JobFailed where it found nothing."""
    from engram_client.jobs import succeeded

    if as_json:
        print_json(record.raw)
        if record.state != "succeeded":
            raise typer.Exit(REFUSED)
        return
    succeeded(record)
    print_evaluation(record.evaluation or {})


def print_evaluation(found: Mapping[str, Any]) -> None:
    """What an evaluation has found, for people."""
    versions: list[Mapping[str, Any]] = list(found.get("versions") or ())
    heads = ("VERSION", "IMAGES", "ACCURACY", "WITH TASK", "UNKNOWN", "CALIBRATION", "STRANGERS", "OF THEM UNKNOWN")
    print_table(heads, [_whole(one) for one in versions])
    typer.echo("")
    columns = [f"RECALL {one.get('version')}" for one in versions]
    print_table(("TASK", "LABEL", "IMAGES", *columns), _classes(versions))
    comparison = found.get("comparison")
    if comparison is not None:
        typer.echo("")
        _print_comparison(comparison, found.get("images"))
    unreadable = found.get("unreadable") or {}
    if unreadable.get("count"):
        typer.echo(f"warning: {unreadable['count']} images cannot be read, and were left out", err=True)


def _whole(one: Mapping[str, Any]) -> tuple[object, ...]:
    strangers = one.get("strangers") or {}
    names = ("version", "images", "accuracy", "accuracy_with_task", "unknown_share", "calibration_error")
    return (*(one.get(name) for name in names), strangers.get("images"), strangers.get("unknown_share"))


def _classes(versions: list[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """Task, label, images and the recall by each version, of each class that one of them knows."""
    found: dict[tuple[str, str], list[Mapping[str, Any] | None]] = {}
    for place, one in enumerate(versions):
        for task, figures in (one.get("tasks") or {}).items():
            for label, counted in figures["classes"].items():
                found.setdefault((task, label), [None] * len(versions))[place] = counted
    rows = []
    for (task, label), counts in found.items():
        images = next(count["images"] for count in counts if count is not None)
        rows.append((task, label, images, *(None if count is None else count["recall"] for count in counts)))
    return rows


def _print_comparison(comparison: Mapping[str, Any], images: object) -> None:
    count, listed = comparison.get("differences", 0), list(comparison.get("listed") or ())
    kinds = ", ".join(f"{name} {number}" for name, number in (comparison.get("by") or {}).items() if number)
    typer.echo(f"{count} of {images} images are answered otherwise" + (f" ({kinds})" if kinds else ""))
    if listed:
        heads = ("DIFFERS", *(f"VERSION {answer['version']}" for answer in listed[0]["answers"]), "IMAGE")
        rows = [(",".join(one["differs"]), *map(_answer, one["answers"]), one["image"]) for one in listed[:_MOST_SHOWN]]
        print_table(heads, rows)
    if count > _MOST_SHOWN:
        more = count - min(len(listed), _MOST_SHOWN)
        typer.echo(f"... and {more} more; engram jobs show JOB --json lists {len(listed)}")


def _answer(answer: Mapping[str, Any]) -> str:
    known = "" if answer["known"] is not False else " unknown"
    return f"{answer['task']}/{answer['label']} {cell(answer['probability'])}{known}"


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise typer.BadParameter(f"{text!r} is no version, and no two with a comma between them.")
    return [int(part) for part in parts]
