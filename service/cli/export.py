"""Command `engram export`: one version as a module that PyTorch alone runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.tables import print_facts, print_json
from service.cli.vault import AsJson, Data, Store, opened
from service.cli.verify import of_bundle

if TYPE_CHECKING:
    from vault.storage.object_store import ObjectStore


class ExportFormat(StrEnum):
    """What is written."""

    torch = "torch"


def export(
    model: Annotated[str, typer.Argument(help="The model; of a --bundle any name will do.")],
    file: Annotated[Path, typer.Argument(help="The file to write, such as parts.pt2.")],
    format: Annotated[ExportFormat, typer.Option("--format", help="torch: a file of torch.export.")],
    version: Annotated[
        int | None, typer.Option(min=0, help="The version's number; by default the one that answers.")
    ] = None,
    data: Data = None,
    store: Store = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="A file that `engram vault export` wrote, in place of a store.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write one version as a module that PyTorch alone loads, without this program. It is not byte-exact, and can learn
    nothing: how far its answers are from the version's is measured, printed, and written into the file.
    """
    from engram.errors import EngramError

    if file.exists() and not force:
        raise typer.BadParameter(f"{file} is there already; --force replaces it.")
    if not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"There is no folder {file.absolute().parent}.")
    if bundle is not None and (data is not None or store is not None):
        raise typer.BadParameter("Either a store or --bundle, not both.")
    with of_bundle(bundle) if bundle is not None else opened(data, store) as objects:
        try:
            done = _exported(objects, model if bundle is None else None, version, file)
        except EngramError as error:
            typer.echo(f"{error} ({error.code})", err=True)
            raise typer.Exit(1) from error
    if as_json:
        print_json(done)
        return
    measured = done["measured"]
    print_facts(
        [
            ("file", str(file)),
            ("version", f"{done['version']} of {done['model']}"),
            ("tasks", len(done["tasks"])),
            ("exact", "no"),
            ("logits differ by", f"{measured['largest_logit_difference']:.2g} of {measured['largest_logit']:.3g}"),
            ("other labels", f"{measured['other_labels']} of {measured['images']} probe images"),
        ]
    )


def _exported(objects: ObjectStore, model: str | None, version: int | None, file: Path) -> dict[str, Any]:
    from functools import partial

    from engram.certificate import probe_batch
    from engram.checkpointing.pieces import Piece
    from engram.config.definition import Definition
    from engram.memory import restore
    from engram.methods.torch_export import export_torch
    from engram.recognition.naming import Naming
    from vault.approval import answering
    from vault.classes.names import shown
    from vault.commit_log import CommitLog
    from vault.errors import NotFound
    from vault.models import Models

    models, get = Models(objects), objects.get_blob
    name = model or models.list()[0].name
    record, log = models.get(name), CommitLog(objects, models)
    head = log.head(name)
    if head is None:
        raise NotFound(f"The model {name} has no version.")
    commit = answering(log, name, head) if version is None else log.read(name, version)
    assert commit.recogniser is not None, "every commit names its recogniser"
    memory = restore(
        Definition.load(record.definition, commit.decoding),
        [Piece(sha, partial(get, sha)) for sha in commit.engrams],
        get(commit.recogniser),
        None,
        dict(commit.budget),
    )
    about = {"model": name, "version": commit.version, "engrams": commit.engrams, "recogniser": commit.recogniser}
    method = memory.method.joining(Naming.of(memory.tasks, shown(commit)).shown)
    return export_torch(method, probe_batch(memory.definition.input), file, about)
