"""Commands `engram versions`, `activate`, `reject`, `rename`, `certificate` and `audit`: history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.remote.connection import ApiKey, ModelArgument, Url, connected
from service.cli.tables import moment, print_json, print_table
from service.cli.vault import AsJson

if TYPE_CHECKING:
    from engram_client import AuditRecord, VersionRecord

Number = Annotated[int, typer.Argument(metavar="VERSION", min=0, help="The version's number.")]


def versions(model: ModelArgument, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """List a model's versions, the newest first."""
    with connected(url, key) as client:
        found = client.versions(model)
    if as_json:
        print_json([one.raw for one in found])
        return
    rows = [
        (one.version, one.kind, one.status, one.target, len(one.tasks), moment(one.created_at), one.job, _task(one))
        for one in found
    ]
    print_table(("VERSION", "KIND", "STATUS", "OF", "TASKS", "CREATED", "JOB", "TASK"), rows)


def _task(version: VersionRecord) -> str | None:
    """The task that a version is about, and what it was called before."""
    if version.renamed is None:
        return version.task
    before, labels = version.renamed.get("from"), version.renamed.get("labels", {})
    named = [] if before == version.task else [f"{before} -> {version.task}"]
    changed = [f"{old} -> {new}" for old, new in labels.items()]
    return (named or [str(version.task)])[0] + (f" ({', '.join(changed)})" if changed else "")


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
    """Serve what a candidate is, or an earlier version was, as a new version."""
    with connected(url, key) as client:
        found = client.activate(model, version, allow_empty=allow_empty)
    if as_json:
        print_json(found.raw)
    else:
        typer.echo(f"The model {model} is at version {found.version}, which serves what version {version} was.")


def reject(model: ModelArgument, version: Number, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Have a candidate wait no longer, nor those that were learned on it."""
    with connected(url, key) as client:
        found = client.reject(model, version)
    if as_json:
        print_json(found.raw)
    else:
        typer.echo(f"Version {version} of the model {model} waits no longer; what answers stays as it is.")


def rename(
    model: ModelArgument,
    task: Annotated[str, typer.Argument(help="The task, by the name that is shown or that it was learned under.")],
    new: Annotated[str | None, typer.Argument(metavar="[NEW]", help="Its name from now on.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="OLD=NEW", help="Another label; may be repeated.")
    ] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show a task, or its labels, by other names, as a new version; nothing is learned again."""
    pairs = [one.partition("=") for one in labels or []]
    if odd := [old for old, equals, label in pairs if not (old and equals and label)]:
        raise typer.BadParameter(f"{odd[0]!r} is not OLD=NEW.")
    if new is None and not pairs:
        raise typer.BadParameter("Give a new name, or --label OLD=NEW.")
    with connected(url, key) as client:
        found = client.rename_task(model, task, new, labels={old: label for old, _, label in pairs})
    if as_json:
        print_json(found.raw)
    else:
        waits = ", which waits to be activated" if found.status == "candidate" else ""
        typer.echo(f"Version {found.version} of the model {model} shows these names{waits}.")


def audit(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Of this model alone.")] = None,
    action: Annotated[str | None, typer.Option(help="Of this kind alone: create, learn, activate, ...")] = None,
    since: Annotated[datetime | None, typer.Option(help="Since this moment (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most entries to show.")] = 100,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Tell who changed what, the newest first; this takes a key with the scope admin."""
    oldest = None if since is None else since.replace(tzinfo=UTC)
    with connected(url, key) as client:
        found = client.audit(model=model, action=action, since=oldest, limit=limit)
    if as_json:
        print_json([one.raw for one in found])
        return
    rows = [
        (moment(one.at), one.action, one.model, one.version, one.target, _who(one), one.job or one.key or one.backbone)
        for one in found
    ]
    print_table(("AT", "ACTION", "MODEL", "VERSION", "OF", "BY", "JOB, KEY OR BACKBONE"), rows)


def _who(entry: AuditRecord) -> str | None:
    if entry.by is None:
        return None
    named = (entry.by.kind, entry.by.id, entry.by.name)
    return " ".join(part for part in named if part is not None)


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
    signature = found.get("signature")
    typer.echo(f"signed with the key {signature.get('key_id')}" if signature else "not signed")
