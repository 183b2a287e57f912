"""`engram keys`: API keys are made, listed and revoked beside the store, never over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from service.vault_cli import opened
from vault.keys import Keys, Limits

app = typer.Typer(name="keys", help="Make, list and revoke API keys.", no_args_is_help=True)

Data = Annotated[
    Path | None,
    typer.Option(help="Folder of `engram serve`; without it the store of ENGRAM_STORE_URL, else ./engram-data."),
]
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class KeyScope(str, Enum):  # noqa: UP042  # typer shows the values of such an enum as choices
    """What a key may do; each may also do all that those before it may."""

    predict = "predict"
    learn = "learn"
    admin = "admin"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, for people.")],
    scope: Annotated[KeyScope, typer.Option(help="predict: answers. learn: also tasks and jobs. admin: everything.")],
    expires: Annotated[
        str | None, typer.Option(help="For how long, such as 90d, 12h or 30m; without it, for good.")
    ] = None,
    rate: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images a day, predicted or explained.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Jobs open at the same time.")] = None,
    data: Data = None,
) -> None:
    """Make a key and show it, this once: the store only keeps its hash."""
    until = None if expires is None else datetime.now(UTC) + duration(expires)
    with _keys(data, make=True) as keys:
        key, token = keys.create(name, scope.value, until, Limits(rate, images, jobs))
    typer.echo(f"Key {key.id} for {key.name}, scope {key.scope}. This is the only time it is shown:", err=True)
    typer.echo(token)


@app.command("list")
def show(data: Data = None) -> None:
    """All keys there ever were, without their secrets."""
    with _keys(data) as keys:
        for key, revoked in keys.list():
            state = "revoked" if revoked else "expired" if key.expired else "valid"
            typer.echo(f"{key.id}  {key.scope:7}  {state:7}  {key.created_at[:19]}Z  {_limits(key.limits)}  {key.name}")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `engram keys list` shows it.")], data: Data = None
) -> None:
    """End a key; services notice within ENGRAM_KEY_SECONDS."""
    with _keys(data) as keys:
        keys.revoke(key_id)
    typer.echo(f"Key {key_id} is revoked.")


def duration(text: str) -> timedelta:
    """`90d`, `12h` or `30m`; raises typer.BadParameter."""
    match = re.fullmatch(r"([1-9]\d{0,5})([mhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time such as 90d, 12h or 30m.")
    return int(match[1]) * _UNITS[match[2]]


def _limits(limits: Limits) -> str:
    given = {"/min": limits.requests_per_minute, " images/day": limits.images_per_day, " jobs": limits.open_jobs}
    return ", ".join(f"{number}{unit}" for unit, number in given.items() if number is not None) or "-"


@contextmanager
def _keys(data: Path | None, *, make: bool = False) -> Iterator[Keys]:
    with opened(data, None, make=make) as objects:
        yield Keys(objects)
