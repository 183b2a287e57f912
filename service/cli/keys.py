"""Commands `engram keys`: API keys made, listed and revoked in the store, without a service."""

from __future__ import annotations

import getpass
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.tables import moment, print_table
from service.cli.vault import AsJson, opened
from vault import audit
from vault.audit import Audit
from vault.keys import KeyLimits, Keys

MOST = 10**12
"""The highest limit that can be given: numbers in headers have at most 15 digits."""

app = typer.Typer(name="keys", help="Make, list and revoke API keys.", no_args_is_help=True)

Data = Annotated[
    Path | None,
    typer.Option(help="Folder of `engram serve`; without it the store of ENGRAM_STORE_URL, else ./engram-data."),
]
_COLUMNS = {
    "ID": "id",
    "SCOPE": "scope",
    "STATE": "state",
    "CREATED": "created_at",
    "EXPIRES": "expires_at",
    "REQUESTS/MIN": "requests_per_minute",
    "IMAGES/DAY": "images_per_day",
    "JOBS": "open_jobs",
    "NAME": "name",
}
"""The table of keys: what heads each column, and the field in it."""
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
    rate: Annotated[int | None, typer.Option(min=1, max=MOST, help="Requests a minute.")] = None,
    images: Annotated[int | None, typer.Option(min=1, max=MOST, help="Images a day, predicted or explained.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=MOST, help="Jobs open at the same time.")] = None,
    data: Data = None,
) -> None:
    """Make a key and show it, this once: the store only keeps its hash."""
    until = None if expires is None else datetime.now(UTC) + duration(expires)
    with _keys(data, make=True) as (keys, log):
        by = user()
        key, token = keys.create(name, scope.value, until, KeyLimits(rate, images, jobs), by=by)
        log.record(audit.of_key(key, by))
    typer.echo(f"Key {key.id} for {key.name}, scope {key.scope}. This is the only time it is shown:", err=True)
    typer.echo(token)


@app.command("list")
def show(data: Data = None, as_json: AsJson = False) -> None:
    """All keys there ever were, without their secrets: one on a line below the columns' names, every column but the
    last one word, and - for what a key does not have.
    """
    with _keys(data) as (keys, _):
        found = [key.shown(revoked) for key, revoked in keys.list()]
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    print_table(tuple(_COLUMNS), [[_cell(field, key[field]) for field in _COLUMNS.values()] for key in found])


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `engram keys list` shows it.")], data: Data = None
) -> None:
    """End a key; services notice within ENGRAM_KEY_SECONDS."""
    with _keys(data) as (keys, log):
        revocation = keys.revoke(key_id, user())
        if revocation.by is not None:
            log.record(audit.of_revocation(revocation, revocation.by))
    typer.echo(f"Key {key_id} is revoked.")


def duration(text: str) -> timedelta:
    """`90d`, `12h` or `30m`; raises typer.BadParameter."""
    match = re.fullmatch(r"([1-9]\d{0,5})([mhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time such as 90d, 12h or 30m.")
    return int(match[1]) * _UNITS[match[2]]


def user() -> dict[str, Any]:
    """Who runs this command, as the audit log names them."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a number without a name
        name = str(os.getuid())
    return {"kind": "cli", "id": None, "name": name}


def _cell(field: str, value: object) -> object:
    """A value in the table: moments to the second."""
    return moment(str(value)) if field.endswith("_at") and value is not None else value


@contextmanager
def _keys(data: Path | None, *, make: bool = False) -> Iterator[tuple[Keys, Audit]]:
    with opened(data, None, make=make) as objects:
        yield Keys(objects), Audit(objects)
