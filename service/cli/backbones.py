"""Commands `engram backbones`: networks of users, stored by a service, or converted from pickles here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.vault import AsJson

if TYPE_CHECKING:
    import httpx

app = typer.Typer(name="backbones", help="Bring networks of your own, for models to read.", no_args_is_help=True)

Url = Annotated[str, typer.Option(envvar="ENGRAM_URL", help="The service.")]
ApiKey = Annotated[
    str | None, typer.Option("--key", envvar="ENGRAM_API_KEY", show_envvar=True, help="API key, if it asks for one.")
]
_HERE = "http://127.0.0.1:8000"
_ANSWER_SECONDS = 600.0
"""An inspection of many parameters takes its time."""
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
    licence: Annotated[str | None, typer.Option(help="Of the weights.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="File with the names of its outputs: JSON, or one on a line.", exists=True)
    ] = None,
    url: Url = _HERE,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Have a service inspect and store a network; doing it again changes nothing."""
    form = {"name": name, "architecture": architecture}
    form |= {} if licence is None else {"licence": licence}
    form |= {} if config is None else {"config": _json(config)}
    form |= {} if classes is None else {"classes": json.dumps(_names(classes))}
    with _service(url, key) as client, file.open("rb") as weights:
        answer = client.post("/v1/backbones", data=form, files={"weights": (file.name, weights)})
        found = _checked(answer)
    if as_json:
        _print_json(found)
        return
    verb = "Stored" if answer.status_code == 201 else "There is already"
    typer.echo(f"{verb} {found['name']}: {found['architecture']}, {found['parameters']} parameters.")


@app.command("list")
def show_all(url: Url = _HERE, key: ApiKey = None, as_json: AsJson = False) -> None:
    """All backbones of a service, one on a line below the columns' names, and - for what one does not have."""
    found: list[dict[str, Any]] = []
    with _service(url, key) as client:
        after: dict[str, str] = {}
        while True:
            page = _checked(client.get("/v1/backbones", params=after))
            found += page["backbones"]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
    if as_json:
        _print_json(found)
        return
    rows = [tuple(_COLUMNS), *(tuple(_cell(field, one.get(field)) for field in _COLUMNS.values()) for one in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def show(name: str, url: Url = _HERE, key: ApiKey = None, as_json: AsJson = False) -> None:
    """One backbone: what its network is, what it sees of an image, and the levels that models read."""
    with _service(url, key) as client:
        found = _checked(client.get(f"/v1/backbones/{name}"))
    if as_json:
        _print_json(found)
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
def delete(name: str, url: Url = _HERE, key: ApiKey = None) -> None:
    """Delete a backbone that no model has."""
    with _service(url, key) as client:
        _checked(client.delete(f"/v1/backbones/{name}"))
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


@contextmanager
def _service(url: str, key: str | None) -> Iterator[httpx.Client]:
    """A client of the service; what fails is printed as one sentence, and ends the program with the status 1."""
    import httpx

    from telemetry.redaction import redact

    timeout = httpx.Timeout(60, read=_ANSWER_SECONDS)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=timeout) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        typer.echo(f"{redact(url)} cannot be asked: {error}", err=True)
        raise typer.Exit(1) from error


def _checked(answer: httpx.Response) -> Any:
    """The JSON of an answer; a refusal is printed, and ends the program with the status 1."""
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        problem = answer.json()
        text = f"{problem['detail']} ({problem['code']})"
    except (ValueError, KeyError, TypeError):
        text = f"The service answered {answer.status_code}."
    typer.echo(text, err=True)
    raise typer.Exit(1)


def _json(given: str) -> str:
    """JSON as it is given, or out of the file that is named; raises typer.BadParameter."""
    text = given if given.lstrip().startswith("{") else _read(Path(given))
    _parsed(text, given)
    return text


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


def _print_json(found: object) -> None:
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


def _cell(field: str, value: object) -> str:
    """A value in the table: bytes as MiB, moments to the second."""
    if value is None:
        return "-"
    if field == "bytes" and isinstance(value, int):
        return f"{value / 2**20:.1f}"
    return f"{str(value)[:19]}Z" if field.endswith("_at") else str(value)
