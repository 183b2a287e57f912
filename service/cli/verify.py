"""Command `engram verify`: a certificate checked on any machine, from a store or an exported file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.tables import print_json, print_table
from service.cli.vault import AsJson, Data, Store, opened

if TYPE_CHECKING:
    from vault.certificates.signing import PublicKey
    from vault.maintenance.verification import CertificateVerification
    from vault.storage.object_store import ObjectStore

STATUSES = {"holds": 0, "refuted": 1, "open": 3}
"""Exit status by outcome; 2 is that of a wrong use."""


def verify(
    model: Annotated[str | None, typer.Argument(help="The model; that of a --bundle need not be named.")] = None,
    version: Annotated[
        int | None, typer.Option(min=0, help="The version's number; by default the one that answers.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="The key, in PEM, that the certificate must be signed with.")
    ] = None,
    data: Data = None,
    store: Store = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="A file that `engram vault export` wrote, in place of a store.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the certificate of a version on this machine, without a service: the commits up to it, all that it is made
    of, its signature, and its answers, which are made again. The exit status is 0 when all of it holds, 1 when some of
    it does not, and 3 when some of it can be told neither way, such as answers certified in another environment.
    """
    if (model is None) == (bundle is None):
        raise typer.BadParameter("Name either a model of the store, or --bundle with a file.")
    if bundle is not None and (data is not None or store is not None):
        raise typer.BadParameter("Either a store or --bundle, not both.")
    trusted = None if public_key is None else _trusted(public_key)
    with of_bundle(bundle) if bundle is not None else opened(data, store) as objects:
        from engram.runtime import configure
        from service.cli.validator import LearnerValidator
        from service.settings import ServiceSettings
        from vault.errors import UnknownModel, UnknownVersion
        from vault.maintenance.verification import verify_certificate
        from vault.models import Models

        configure(ServiceSettings(certificate_key=None).torch_threads)
        name = model or Models(objects).list()[0].name
        try:
            found = verify_certificate(objects, LearnerValidator(objects), name, version, trusted)
        except (UnknownModel, UnknownVersion) as error:
            raise typer.BadParameter(f"{error} ({error.code})") from error
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)
    raise typer.Exit(STATUSES[found.outcome])


def _trusted(file: Path) -> PublicKey:
    from vault.certificates.signing import PublicKey

    try:
        return PublicKey.of(str(file))
    except ValueError as error:
        raise typer.BadParameter(f"--public-key cannot be used: {error}.") from error


@contextmanager
def of_bundle(file: Path) -> Iterator[ObjectStore]:
    """A store with the model of a bundle alone, which is removed at the end."""
    if not file.is_file():
        raise typer.BadParameter(f"There is no file {file}.")
    with (
        tempfile.TemporaryDirectory(prefix="engram-bundle-") as folder,
        opened(None, os.path.join(folder, "store"), make=True) as objects,
    ):
        from service.cli.validator import LearnerValidator
        from vault.maintenance.export import import_model

        import_model(objects, file, LearnerValidator(objects))
        yield objects


def _print(found: CertificateVerification) -> None:
    print_table(("PART", "OUTCOME", "WHAT WAS FOUND"), [(one.part, one.outcome, one.detail) for one in found.parts])
    verdict = {
        "holds": "The certificate holds.",
        "refuted": "The certificate does not hold.",
        "open": "Nothing speaks against the certificate, but not all of it could be told.",
    }[found.outcome]
    typer.echo(f"{found.model}, version {found.version}: {verdict}")
