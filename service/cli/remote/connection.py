"""Connection of a command to its service: options, exit statuses, completion of names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from engram_client import Client, Dataset
    from engram_client.labelled.parts import Purpose

REFUSED = 1
"""Exit status: the service refused, or a job failed."""
UNREACHABLE = 3
"""Exit status: there was no answer, or none of Engram's."""
INTERRUPTED = 130
"""Exit status: Ctrl-C."""

_LONG_WAIT = 1.0
"""Seconds from which on a pause is told."""

Url = Annotated[
    str | None,
    typer.Option("--url", help="The service's address; by default ENGRAM_URL, else http://127.0.0.1:8000."),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--key", help="API key; better in ENGRAM_API_KEY, since others see what a command is given."),
]


def model_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of models that begin so, for completion in a shell; none where the service does not answer at once."""
    from engram_client import Client, EngramClientError, Patience

    try:
        with Client(ctx.params.get("url"), ctx.params.get("key"), timeout=1.0, patience=Patience(0, 0)) as client:
            return [entry.name for entry in client.models() if entry.name.startswith(incomplete)]
    except (EngramClientError, ValueError):
        return []


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.", autocompletion=model_names)]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="The model's name.", autocompletion=model_names)]


@contextmanager
def connected(url: str | None, key: str | None) -> Iterator[Client]:
    """A client for one command; what goes wrong is said in one sentence, and ends the program with its status.

    1 is a refusal or a failed job, 2 wrong usage, 3 no answer from the service, 130 an interruption.
    """
    from engram_client import Client, EngramClientError, Patience, UnexpectedAnswer, Unreachable

    try:
        client = Client(url, key, timeout=300.0, patience=Patience(60, 0, _say_wait))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        with client:
            yield client
    except (Unreachable, UnexpectedAnswer) as error:
        typer.echo(f"{client.settings.url}: {error}", err=True)
        raise typer.Exit(UNREACHABLE) from error
    except EngramClientError as error:
        typer.echo(error, err=True)
        errors = getattr(error, "errors", ())
        for one in errors if len(errors) > 1 else ():  # a single one is in the sentence above
            typer.echo(f"  {'.'.join(map(str, one.get('loc', ())))}: {one.get('message')}", err=True)
        if (wait := getattr(error, "retry_after", None)) and wait >= _LONG_WAIT:
            typer.echo(f"It may be asked again in {wait:.0f} s.", err=True)
        if getattr(error, "code", None) == "unauthorized":
            typer.echo("Here the key is taken from ENGRAM_API_KEY, or from --key.", err=True)
        raise typer.Exit(REFUSED) from error
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        typer.echo(f"{where}{error.strerror or error}", err=True)
        raise typer.Exit(REFUSED) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error


def _say_wait(seconds: float, why: str) -> None:
    if seconds >= _LONG_WAIT:
        typer.echo(f"waiting {seconds:.0f} s: {why}", err=True)


def given_data(data: str, purpose: Purpose) -> str | Dataset:
    """The labelled images that a command was given, what is left out of a folder or a table being told.

    Raises InvalidDataset and OSError, which `connected` says.
    """
    from engram_client import InvalidDataset, read_dataset
    from engram_client.labelled.dataset import is_dataset

    if "://" in data:
        return data
    if not Path(data).exists():
        raise typer.BadParameter(f"There is no folder or file {data}.")
    if not is_dataset(Path(data)):
        return data
    try:
        found = read_dataset(data, purpose)
    except InvalidDataset:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    return found


def assigned(pairs: Sequence[str]) -> dict[str, Any]:
    """`a=1` and `b.c=text` as `{"a": 1, "b": {"c": "text"}}`: values are JSON where they can be, else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not all(path.split(".")):
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *outer, last = path.split(".")
        place = found
        for name in outer:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"{pair!r} is within something that was given a value.")
        place[last] = value
    return found
