"""Commands `engram learn` and `engram jobs`: tasks submitted, and their jobs followed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.remote.connection import (
    REFUSED,
    ApiKey,
    ModelOption,
    Url,
    assigned,
    connected,
    given_data,
    model_names,
)
from service.cli.remote.evaluation import end_evaluation, print_evaluation
from service.cli.tables import cell, moment, print_facts, print_json, print_table
from service.cli.vault import AsJson

if TYPE_CHECKING:
    from engram_client import JobRecord


jobs = typer.Typer(name="jobs", help="List, show, follow and cancel jobs.", no_args_is_help=True)

_CURVE = 60
"""Epochs of which a curve is shown, the last ones."""

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


def learn(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of <class>/<image>, also under train/ and val/ or with a metadata.csv; a CSV of path and "
            "label; a zip or tar; or an address that workers read (s3://...).",
        ),
    ],
    model: ModelOption,
    name: Annotated[str, typer.Option("--name", "-n", help="What to call the task.")],
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of learning, such as min_accuracy=0.9; may be repeated."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for the end, and show how it gets on.")] = False,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Have a model learn a task. A folder is sent as it is read; nothing is written to disk."""
    from service.cli.remote.progress import submit

    options = assigned(option or [])
    with connected(url, key) as client:
        found = given_data(data, "learn")
        submit(partial(client.learn, model, name, found, options=options), _end if follow else None, as_json)


@jobs.command("list")
def show_all(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Those of this model only.", autocompletion=model_names)
    ] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Jobs, the newest first."""
    with connected(url, key) as client:
        found = client.jobs(model)
    if as_json:
        print_json([job.raw for job in found])
        return
    rows = [(job.id, job.state, job.model, moment(job.created_at), _outcome(job), job.task or None) for job in found]
    print_table(("ID", "STATE", "MODEL", "CREATED", "OUTCOME", "TASK"), rows)


@jobs.command()
def show(job: JobId, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """One job as it is now; the exit status is 1 where it failed or was cancelled."""
    with connected(url, key) as client:
        record = client.job(job).record
    if as_json:
        print_json(record.raw)
    else:
        fraction = (record.progress or {}).get("fraction")
        print_facts(
            [
                ("id", record.id),
                ("kind", record.kind),
                ("model", record.model),
                ("task", record.task or None),
                ("state", record.state),
                ("phase", record.phase),
                ("done", None if fraction is None else f"{fraction:.0%}"),
                ("created", moment(record.created_at)),
                ("ended", None if record.finished_at is None else moment(record.finished_at)),
                ("outcome", _outcome(record)),
                *_curves(record),
            ]
        )
        if record.evaluation is not None:
            typer.echo("")
            print_evaluation(record.evaluation)
    if record.state in ("failed", "cancelled"):
        raise typer.Exit(REFUSED)


@jobs.command()
def follow(job: JobId, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Follow a job until it ends; with --json one event on a line, and no table."""
    from service.cli.remote.progress import JobDisplay, follow_job

    with connected(url, key) as client:
        found = client.job(job)
        with JobDisplay(quiet=as_json) as display:
            follow_job(found, display, print_events=as_json)
        if not as_json:
            _end(found.record, as_json)
        elif found.record.state != "succeeded":
            raise typer.Exit(REFUSED)


@jobs.command()
def cancel(job: JobId, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Ask for a job's end."""
    with connected(url, key) as client:
        record = client.job(job).cancel()
    if as_json:
        print_json(record.raw)
    else:
        typer.echo(f"The job {record.id} is {record.state}.")


def _end(record: JobRecord, as_json: bool) -> None:
    """What came of a job that is over; raises JobFailed where it made no version."""
    from engram_client.jobs import succeeded

    if record.kind == "evaluate":
        end_evaluation(record, as_json)
        return
    if as_json:
        print_json(record.raw)
        if record.state != "succeeded":
            raise typer.Exit(REFUSED)
        return
    succeeded(record)
    report = (record.result or {}).get("report") or {}
    kept = (report.get("accuracy") or {}).get("kept")
    known = "" if kept is None else f", held-out accuracy {kept:.1%}"
    typer.echo(f"Learned {record.task}: version {record.version} of {record.model}{known}.")
    if (record.result or {}).get("candidate"):
        typer.echo(f"It waits to be activated: engram activate {record.model} {record.version}")
    rows = [(name, one.get("held_out"), one.get("recall")) for name, one in (report.get("per_class") or {}).items()]
    if rows:
        print_table(("CLASS", "HELD OUT", "RECALL"), rows)
    for warning in report.get("warnings") or ():
        typer.echo(f"warning: {warning}", err=True)


def _outcome(job: JobRecord) -> str:
    """What a job has made, or why not."""
    if job.error is not None:
        return job.error.code
    if job.evaluation is not None:
        return "evaluated"
    return cell(None) if job.version is None else f"version-{job.version}"


def _curves(job: JobRecord) -> list[tuple[str, str]]:
    """Losses and held-out accuracy over the epochs of a job that has learned, each as a line of bars."""
    from service.cli.remote.progress import curve

    points = ((job.result or {}).get("report") or {}).get("curves") or ()
    found = []
    for heading, name in (("loss", "loss"), ("held-out loss", "held_out_loss"), ("accuracy", "held_out_accuracy")):
        values = [float(point[name]) for point in points if point.get(name) is not None][-_CURVE:]
        if values:
            found.append((heading, f"{curve(values)} {values[-1]:.3g}"))
    return found
