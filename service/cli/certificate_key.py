"""Commands `engram certificate-key`: the key that certificates are signed with, made and shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="certificate-key", help="Make and show the key that certificates are signed with.", no_args_is_help=True
)


@app.command()
def create(file: Annotated[Path, typer.Argument(help="The file to write; it is never replaced.")]) -> None:
    """Make a private key for ENGRAM_CERTIFICATE_KEY, which only you may read, and print its public half."""
    from vault.certificates.signing import SigningKey

    key = SigningKey.create()
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as written:
            written.write(key.pem)
            written.flush()
            os.fsync(written.fileno())
    except FileExistsError as error:
        raise typer.BadParameter(f"{file} is there already; a key that is replaced is lost.") from error
    except OSError as error:
        typer.echo(f"{file} cannot be written: {error.strerror or error}.", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"Wrote {file}, key {key.public.id}. Who verifies certificates wants this:", err=True)
    typer.echo(key.public.pem, nl=False)


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A private or public key in PEM.")]) -> None:
    """Print the public half of a key in PEM, and on standard error the id that certificates have of it."""
    from vault.certificates.signing import PublicKey

    try:
        key = PublicKey.of(str(file))
    except ValueError as error:
        raise typer.BadParameter(f"{file} cannot be used: {error}.") from error
    typer.echo(f"Key {key.id}", err=True)
    typer.echo(key.pem, nl=False)
