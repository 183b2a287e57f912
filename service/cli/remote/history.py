"""Commands `engram versions`, `engram activate` and `engram certificate`: a model's history."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.remote.connection import ApiKey, ModelArgument, Url, connected
from service.cli.tables import moment, print_json, print_table
from service.cli.vault import AsJson

Number = Annotated[int, typer.Argument(metavar="VERSION", min=0, help="The version's number.")]


def versions(model: ModelArgument, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """List a model's versions, the newest first."""
    with connected(url, key) as client:
        found = client.versions(model)
    if as_json:
        print_json([one.raw for one in found])
        return
    rows = [
        (one.version, one.kind, one.target, len(one.tasks), moment(one.created_at), one.job, one.task) for one in found
    ]
    print_table(("VERSION", "KIND", "OF", "TASKS", "CREATED", "JOB", "TASK"), rows)


def activate(
    model: ModelArgument,
    version: Number,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Even if that version has no task, and ends all answers.")
    ] = False,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Serve again what an earlier version was, as a new version."""
    with connected(url, key) as client:
        found = client.activate(model, version, allow_empty=allow_empty)
    if as_json:
        print_json(found.raw)
    else:
        typer.echo(f"The model {model} is at version {found.version}, which serves what version {version} was.")


def certificate(
    model: ModelArgument,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", min=0, help="By default the one that is served.")
    ] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show a version's retention certificate: digests of what each task answers to the probes."""
    with connected(url, key) as client:
        found = client.certificate(model, version)
    if as_json:
        print_json(found)
        return
    rows = [(one.get("logits_sha256"), one.get("task")) for one in found.get("tasks", ())]
    print_table(("ANSWERS (SHA-256)", "TASK"), rows)
