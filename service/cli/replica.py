"""One replica of the service, of one process or several."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from engram.errors import DeviceMissing
from engram.runtime import set_aside_imports
from service.app import create_app
from service.auth.exposure import UnsafeExposure, guarded
from service.lifecycle.device import serving_device
from service.lifecycle.processes import Misset, ProcessSupervisor
from service.lifecycle.signals import ask_to_stop, while_heeding
from service.server.process_group import Membership, ProcessGroup, socket_folder
from service.server.receiver import Receiver
from service.server.server import Server, listen, url
from service.settings import ServiceSettings, given
from vault.errors import StoreUnavailable, UnsoundStore, UnsuitableRedis
from vault.vault import Vault


def run(host: str, port: int, options: Mapping[str, Any], *, without_keys: bool, member: str | None = None) -> int:
    """Run a replica, or one further process of one, until a signal comes; the exit status.

    Parameters
    ----------
    options
        Settings that stand instead of what the environment says; None where it is to be asked.
    member
        Of a further process, as `Membership` writes it.
    """
    settings = ServiceSettings(**given(**options))
    try:
        serving_device(settings)
    except DeviceMissing as error:
        typer.echo(f"{error} ({error.code})", err=True)
        return os.EX_CONFIG
    if member is not None:
        return _run_member(settings, host, Membership.parse(member))
    try:
        listening = listen(host, port)
    except OSError as error:
        typer.echo(f"Cannot listen on {host}:{port}: {error.strerror or error}.", err=True)
        return 1
    with listening:
        try:
            settings = guarded(settings, listening, without_keys=without_keys)
            with Vault.connect(settings) as vault:
                while_heeding(lambda: vault.check_at_start(ask_to_stop))
        except UnsafeExposure as error:
            typer.echo(error, err=True)
            return 1
        except (UnsoundStore, UnsuitableRedis) as error:
            typer.echo(f"{error} ({error.code})", err=True)
            return os.EX_CONFIG
        except StoreUnavailable as error:
            typer.echo(f"{error} ({error.code})", err=True)
            return 1
        try:
            return _run_first(settings, listening)
        except Misset as error:
            typer.echo(error, err=True)
            return os.EX_CONFIG


def _run_first(settings: ServiceSettings, listening: socket.socket) -> int:
    """Run the process that starts the others."""
    address = url(listening)
    with contextlib.ExitStack() as parts:
        supervisor = ProcessSupervisor(ask_to_stop)
        parts.callback(supervisor.stop)
        processes = settings.processes or 1
        # One process alone talks to no other, and needs no place for it.
        folder = parts.enter_context(socket_folder()) if processes > 1 else Path()
        group = ProcessGroup(supervisor, folder, listening.getsockname()[:2], processes, os.environ)

        def on_listening() -> None:
            typer.echo(f"Engram is listening on {address}")
            group.start(settings)

        app = create_app(group.own.share(settings), group.own.siblings())
        server = Server(app, on_listening, group.begin_to_stop, folder=group.meeting)
        set_aside_imports()
        with supervisor.sound():
            server.run(sockets=[listening])
        return 0 if server.started else 1


def _run_member(settings: ServiceSettings, host: str, membership: Membership) -> int:
    """Run a further process; the first one has checked what there is to check, and listens."""
    app = create_app(membership.share(settings), membership.siblings())
    server = Server(app, host=host, receiver=Receiver(membership.folder, membership.number))
    set_aside_imports()
    server.run(sockets=[])
    return 0 if server.started else 1
