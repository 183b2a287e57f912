"""Commands `engram backbones`: networks of users, stored by a service, or converted from pickles here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.remote.connection import ApiKey, Url, connected
from service.cli.tables import moment, print_json, print_table
from service.cli.vault import AsJson

app = typer.Typer(name="backbones", help="Bring networks of your own, for models to read.", no_args_is_help=True)

_COLUMNS = {
    "NAME": "name",
    "ARCHITECTURE": "architecture",
    "PARAMETERS": "parameters",
    "MIB": "bytes",
    "OUTPUTS": "outputs",
    "LICENCE": "licence",
    "CREATED": "created_at",
}
"""The table of backbones: what heads each column, and the field in it."""


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="Its weights, a safetensors file.", exists=True, dir_okay=False)],
    architecture: Annotated[str, typer.Option(help="Such as torchvision/resnet18 or timm/tf_efficientnet_lite0.")],
    name: Annotated[str, typer.Option(help="What models call it.")],
    config: Annotated[
        str | None, typer.Option(help="JSON, or a file of it: size, interpolation, crop, mean and std of its images.")
    ] = None,
    arguments: Annotated[
        str | None, typer.Option(help="JSON, or a file of it: num_classes, and img_size of transformers.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="File with the names of its outputs: JSON, or one on a line.", exists=True)
    ] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Have a service inspect and store a network; doing it again changes nothing."""
    settings, built_with = (None if text is None else _json(text) for text in (config, arguments))
    names = None if classes is None else _names(classes)
    with connected(url, key) as client:
        found = client.add_backbone(
            name, file, architecture, config=settings, arguments=built_with, classes=names, licence=licence
        )
    if as_json:
        print_json(found.raw)
    else:
        typer.echo(f"The backbone {found.name} is there: {found.architecture}, {found.parameters} parameters.")


@app.command("list")
def show_all(url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """All backbones of a service, one on a line below the columns' names, and - for what one does not have."""
    with connected(url, key) as client:
        found = [one.raw for one in client.backbones()]
    if as_json:
        print_json(found)
        return
    print_table(tuple(_COLUMNS), [[_cell(field, one.get(field)) for field in _COLUMNS.values()] for one in found])


@app.command()
def show(name: str, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """One backbone: what its network is, what it sees of an image, and the levels that models read."""
    with connected(url, key) as client:
        found = dict(client.backbone(name).raw)
    if as_json:
        print_json(found)
        return
    levels = found.pop("levels", [])
    classes = found.pop("classes", None)
    for field, value in found.items():
        shown = ", ".join(f"{one} {of}" for one, of in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{field:14} {'-' if shown in (None, '') else shown}")
    for level in levels:
        typer.echo(f"{'level':14} {level['name']}: {level['channels']} channels, every {level['reduction']} pixels")
    typer.echo(f"{'classes':14} {'-' if classes is None else ', '.join(classes)}")


@app.command()
def delete(name: str, url: Url = None, key: ApiKey = None) -> None:
    """Delete a backbone that no model has."""
    with connected(url, key) as client:
        client.delete_backbone(name)
    typer.echo(f"The backbone {name} is deleted.")


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A .pth file, which is a pickle.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Read it also where a process cannot be kept from the network.")
    ] = False,
) -> None:
    """Write the weights in a pickle as safetensors, on this machine, in a process without a network."""
    from engram.errors import EngramError
    from engram.nn.pretrained.conversion import convert as convert_file

    try:
        count = convert_file(file, output, unsafe=unsafe)
    except EngramError as error:
        typer.echo(f"{error} ({error.code})", err=True)
        raise typer.Exit(1) from error
    except FileExistsError as error:
        raise typer.BadParameter(f"{output} is there already.") from error
    except OSError as error:
        typer.echo(f"{output}: {error.strerror or error}.", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"Wrote {count} tensors to {output}.")


def _json(given: str) -> dict[str, Any]:
    """A JSON object as it is given, or out of the file that is named; raises typer.BadParameter."""
    found = _parsed(given if given.lstrip().startswith("{") else _read(Path(given)), given)
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{given[:120]} is no JSON object.")
    return found


def _parsed(text: str, what: object) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{str(what)[:120]} is not JSON: {error}") from error


def _names(path: Path) -> list[str]:
    text = _read(path)
    if text.lstrip().startswith("["):
        return [str(name) for name in _parsed(text, path)]
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise typer.BadParameter(f"{path} cannot be read: {why}.") from error


def _cell(field: str, value: object) -> object:
    """A value in the table: bytes as MiB, moments to the second."""
    if field == "bytes" and isinstance(value, int):
        return f"{value / 2**20:.1f}"
    return moment(str(value)) if field.endswith("_at") and value is not None else value
