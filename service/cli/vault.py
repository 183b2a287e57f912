"""Commands `engram vault`: check and sweep of a store, and the move of models between stores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.errors.validation import counted

if TYPE_CHECKING:
    from vault.maintenance.export import TransferSummary
    from vault.maintenance.findings import Findings
    from vault.settings import VaultSettings
    from vault.storage.object_store import ObjectStore

vault_app = typer.Typer(help="Check what is stored, and move models from one store to another.", no_args_is_help=True)

Data = Annotated[Path | None, typer.Option(help="The folder that was given to `engram serve --data`.")]
Store = Annotated[str | None, typer.Option(help="A store's URL, as in ENGRAM_STORE_URL, which it overrides.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def chosen(data: Path | None, store: str | None) -> VaultSettings:
    """Settings of the store that was asked for; without an option that of the environment, else of `engram serve`."""
    from vault.settings import VaultSettings

    if data is not None and store is not None:
        raise typer.BadParameter("Either --data or --store, not both.")
    url = store or os.environ.get("ENGRAM_STORE_URL")
    if data is not None or url is None:
        url = str((data or Path("engram-data")) / "store")
    return VaultSettings(store_url=url)


@contextmanager
def opened(data: Path | None, store: str | None, *, make: bool = False) -> Iterator[ObjectStore]:
    """The store that was asked for (`chosen`), in which nothing is created before it is known to be sound.

    Errors of the vault and of files are printed as one sentence, and end the program with the status 1; a store that is
    not there, unless it is to be made, with 2; one that is not sound with 78.
    """
    from vault.errors import UnsoundStore, VaultError
    from vault.storage.object_store import ObjectStore
    from vault.storage.probe import StoreProbe

    settings = chosen(data, store)
    folder = settings.store_folder
    if folder is not None and not make and not folder.is_dir():
        raise typer.BadParameter(f"There is no store at {folder}.")
    try:
        with _removed_unless_used(folder) if folder is not None and make else nullcontext():
            objects = ObjectStore.connect(settings)
            objects.before_creating = StoreProbe(objects, settings).require
            yield objects
    except UnsoundStore as error:
        typer.echo(f"{error} ({error.code})", err=True)
        raise typer.Exit(os.EX_CONFIG) from error
    except VaultError as error:
        typer.echo(f"{error} ({error.code})", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"{error.filename or 'The file'}: {error.strerror or error}.", err=True)
        raise typer.Exit(1) from error


@contextmanager
def _removed_unless_used(folder: Path) -> Iterator[None]:
    """Should the block fail, the folders that it made for a store, and left empty, are removed."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise


@vault_app.command()
def check(
    data: Data = None,
    store: Store = None,
    model: Annotated[str | None, typer.Option(help="Look at this model only.")] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Load every version, and compare its answers with its certificate.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything that is stored, and at whether the store keeps racing writers apart; the exit status is 0 when
    all is whole, and 1 when it is not.
    """
    with opened(data, store) as objects:
        from engram.runtime import configure
        from service.cli.validator import LearnerValidator
        from service.settings import ServiceSettings
        from vault.errors import UnsoundStore
        from vault.maintenance.check import check as check_store
        from vault.storage.probe import FOLDER, StoreProbe

        configure(ServiceSettings().torch_threads)
        found = check_store(objects, LearnerValidator(objects), model, deep=deep)
        try:
            if not StoreProbe(objects, chosen(data, store)).repeat():
                typer.echo("The store was not probed, since it may not be written to.", err=True)
        except UnsoundStore as error:
            found.add(FOLDER, error.code, str(error))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print_findings(found, deep)
    raise typer.Exit(0 if found.whole else 1)


@vault_app.command("export")
def export(
    model: Annotated[str, typer.Argument(help="The model to export.")],
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    data: Data = None,
    store: Store = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write everything of a model, with all of its versions and certificates, into one file."""
    if file.exists() and not force:
        raise typer.BadParameter(f"{file} is there already; --force replaces it.")
    with opened(data, store) as objects:
        from vault.maintenance.export import export_model

        done = export_model(objects, model, file)
    _print_transfer("Wrote", done, as_json)


@vault_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `engram vault export` wrote.")],
    name: Annotated[str | None, typer.Option(help="What to call the model; by default as it was called.")] = None,
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make the model in a file a model of this store; everything is verified before anything is written."""
    if not file.is_file():
        raise typer.BadParameter(f"There is no file {file}.")
    with opened(data, store, make=True) as objects:
        from service.cli.validator import LearnerValidator
        from vault.maintenance.export import import_model

        done = import_model(objects, file, LearnerValidator(objects), name)
    _print_transfer("Made", done, as_json)


@vault_app.command()
def sweep(
    data: Data = None,
    store: Store = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what nobody needs any more, as the workers do once a day: see ENGRAM_JOB_KEEP_DAYS and the like."""
    with opened(data, store) as objects:
        from vault.maintenance.sweep import Sweep, SweepAges
        from vault.settings import VaultSettings

        swept = Sweep(objects, SweepAges.of(VaultSettings()), dry_run).run()
    if as_json:
        typer.echo(json.dumps(asdict(swept)))
        return
    removed = ", ".join(f"{name} {count}" for name, count in swept.counts().items())
    typer.echo(f"{'Would remove' if dry_run else 'Removed'}: {removed}.")


def _print_transfer(verb: str, done: TransferSummary, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    what = f"{counted(done.versions, 'version')}, {counted(done.blobs, 'blob')}, {done.bytes / 2**20:.1f} MiB"
    typer.echo(f"{verb} the model {done.model}: {what}.")
    if done.backbones:
        typer.echo(f"With the backbones {', '.join(done.backbones)}.")


def _print_findings(found: Findings, deep: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    compared = f"{found.certificates} hold, {found.elsewhere} of other environments"
    rows = {
        "models": found.models,
        "versions": found.versions,
        "backbones": found.backbones,
        "blobs": f"{found.blobs} ({found.bytes / 2**20:.1f} MiB)",
        "certificates": compared if deep else "not compared",
        "jobs": found.jobs,
        "uploads": found.uploads,
        "orphans": f"{found.orphans} ({found.orphan_bytes / 2**20:.1f} MiB)",
        "warnings": len(found.warnings),
        "problems": len(found.problems),
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    console = Console(highlight=False)
    console.print(table)
    for warning in found.warnings:
        console.print(f"warning, {warning.code}: {warning.object}: {warning.detail}", soft_wrap=True, markup=False)
    for problem in found.problems:
        console.print(f"{problem.code}: {problem.object}: {problem.detail}", soft_wrap=True, markup=False)
