"""Commands `engram models`: models created, listed, shown, changed and deleted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.remote.connection import ApiKey, ModelArgument, Url, assigned, connected
from service.cli.tables import moment, print_facts, print_json, print_table
from service.cli.vault import AsJson

if TYPE_CHECKING:
    from engram_client import TaskEntry

app = typer.Typer(
    name="models", help="Create, list, show, change and delete models of a service.", no_args_is_help=True
)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A further field, such as commons.preset=fast; may be repeated."),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Small letters, digits, - and _.")],
    backbone: Annotated[
        str | None,
        typer.Option(help="cnn, the default, mlp, resnet18, ...; over a network adapter, the default, or none."),
    ] = None,
    shape: Annotated[
        str | None, typer.Option(metavar="CxHxW", help="Channels (1 grey, 3 colour), height, width: 3x64x64.")
    ] = None,
    over: Annotated[
        str | None, typer.Option(metavar="NAME", help="A network of `engram backbones`, computed once an image.")
    ] = None,
    adopt: Annotated[
        str | None, typer.Option(metavar="TASK", help="Name of a first task: that network's own classifier.")
    ] = None,
    definition: Annotated[Path | None, typer.Option(help="A JSON file of fields, over which options win.")] = None,
    fields: Set = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Create a model; one that is there already, equal in every field, is left as it is."""
    given = {**_document(definition), **assigned(fields or [])}
    if backbone is not None:
        given["backbone"] = backbone
    if shape is not None:
        given["input"] = {**given.get("input", {}), **_shape(shape)}
    if over is not None:
        if not isinstance(given.get("commons", {}), dict):
            raise typer.BadParameter("--over is for a model over one network; name each of several in its commons.")
        given["commons"] = {"kind": "pretrained", "backbone": over, **given.get("commons", {})}
    if adopt is not None:
        given["adopt"] = adopt
    with connected(url, key) as client:
        made = client.create_model(name, **given)
    if as_json:
        print_json(made.raw)
    else:
        built = f"{made.backbone}, images of {_sides(made.raw)}"
        typer.echo(f"The model {made.name} is there, at version {made.version}: {built}.")


@app.command("list")
def show_all(url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """All models by name."""
    with connected(url, key) as client:
        found = client.models()
    if as_json:
        print_json([entry.raw for entry in found])
        return
    rows = [(entry.name, entry.version, entry.tasks, moment(entry.created_at)) for entry in found]
    print_table(("NAME", "VERSION", "TASKS", "CREATED"), rows)


@app.command()
def show(model: ModelArgument, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """One model: its version, its tasks and classes, the room that is left, and what is wrong with it."""
    with connected(url, key) as client:
        found = client.model(model)
    if as_json:
        print_json(found.raw)
        return
    print_facts(
        [
            ("name", found.name),
            ("version", found.version),
            ("publish", found.publish),
            *((("candidates", ", ".join(map(str, found.candidates))),) if found.candidates else ()),
            ("backbone", found.backbone),
            *_networks(found.raw.get("commons")),
            ("input", _sides(found.raw)),
            ("exact", found.exact),
            ("created", moment(found.created_at)),
        ]
    )
    typer.echo()
    print_table(("TASK", "CLASSES"), [(_called(task), ", ".join(task.classes)) for task in found.tasks])
    typer.echo()
    rows = [(layer.layer, layer.units, layer.units - layer.free, layer.free) for layer in found.capacity]
    print_table(("LAYER", "UNITS", "OWNED", "FREE"), rows)
    for problem in found.problems:
        typer.echo(f"\n{problem.detail} ({problem.code})")


@app.command()
def change(
    model: ModelArgument, fields: Set = None, url: Url = None, key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Give a model another budget, decoder, background or way to publish, by a new version."""
    given = assigned(fields or [])
    if not given:
        raise typer.BadParameter("Say what to change: --set budget=2, decoder=2, background=#ffffff or publish=manual.")
    with connected(url, key) as client:
        found = client.change_model(model, **given)
    if as_json:
        print_json(found.raw)
    else:
        typer.echo(f"The model {found.name} is at version {found.version}.")


@app.command()
def delete(
    model: ModelArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Delete a model with all of its versions, for good; its open jobs are cancelled."""
    if not yes:
        typer.confirm(f"Delete the model {model} with all of its versions?", abort=True, err=True)
    with connected(url, key) as client:
        client.delete_model(model)
    typer.echo(f"The model {model} is deleted.")


def _called(task: TaskEntry) -> str:
    """A task by its name, and by the one that it was learned under where that is another."""
    learned = task.learned_as
    return task.name if learned is None or learned.name == task.name else f"{task.name} (learned as {learned.name})"


def _networks(commons: Any) -> list[tuple[str, str]]:
    """The networks that a model is over."""
    parts = commons if isinstance(commons, list) else [commons]
    brought = [part for part in parts if isinstance(part, dict) and part.get("kind") == "pretrained"]
    several = len(brought) > 1
    return [("over", f"{part['backbone']} ({_source(part['source'], several=several)})") for part in brought]


def _source(source: Mapping[str, Any], *, several: bool) -> str:
    """What a network is, and at which size it sees images, where there may be another."""
    about = str(source["architecture"])
    return f"{about}, {source['preprocessing']['size']} pixels" if several else about


def _sides(model: Mapping[str, Any]) -> str:
    """Channels, height and width of a model's images, as `--shape` takes them."""
    shape = model.get("input", {})
    return "x".join(str(shape.get(side)) for side in ("channels", "height", "width"))


def _shape(text: str) -> dict[str, int]:
    match = re.fullmatch(r"([13])x(\d+)x(\d+)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no shape such as 3x64x64: channels (1 or 3), height, width.")
    return dict(zip(("channels", "height", "width"), map(int, match.groups()), strict=True))


def _document(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} is no JSON file that can be read: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} holds no JSON object.")
    return found
