"""Command-line program `engram`.

Every command imports what it needs by itself, so that `engram --help` does not wait for torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from service.cli import backbones, certificate_key, keys
from service.cli.export import export
from service.cli.remote import asking, evaluation, history, learning, models
from service.cli.vault import vault_app
from service.cli.verify import verify
from service.lifecycle.signals import Stopped, stop_on_signals
from service.lifecycle.tuning import TUNING, restart_tuned
from telemetry.standard_streams import ensure_standard_streams, flush_standard_streams

app = typer.Typer(
    name="engram",
    help="Image models that keep learning in production and never forget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

WithoutKeys = Annotated[
    bool, typer.Option("--without-keys", help="Let everybody who can reach the address do everything.")
]

RootPath = Annotated[
    str | None, typer.Option("--root-path", help="Path that a reverse proxy serves this below, such as /engram.")
]

Processes = Annotated[
    int | None,
    typer.Option("--processes", min=1, max=64, help="Processes that answer, each with all models. Linux alone."),
]

GrpcPort = Annotated[
    int | None,
    typer.Option("--grpc-port", min=0, max=65535, help="Port for gRPC, too (engram-vision[grpc]); 0 takes a free one."),
]

HERE, ASKING = "This machine", "A running service"
"""Groups of commands in the help."""

app.add_typer(keys.app, rich_help_panel=HERE)
app.add_typer(backbones.app, rich_help_panel=ASKING)
app.add_typer(vault_app, name="vault", rich_help_panel=HERE)
app.add_typer(certificate_key.app, rich_help_panel=HERE)
app.command(rich_help_panel=HERE)(verify)
app.command(rich_help_panel=HERE)(export)
app.add_typer(models.app, rich_help_panel=ASKING)
app.add_typer(learning.jobs, rich_help_panel=ASKING)
for command in (
    learning.learn,
    evaluation.evaluate,
    asking.predict,
    asking.explain,
    asking.novelty,
    history.versions,
    history.activate,
    history.reject,
    history.rename,
    history.audit,
    history.certificate,
):
    app.command(rich_help_panel=ASKING)(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"engram {version('engram-vision')}")
        raise typer.Exit


@app.callback()
def _program(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Image models that keep learning in production and never forget."""


@app.command(rich_help_panel=HERE)
def serve(
    data: Annotated[Path, typer.Option(help="Folder for everything lasting; made if it is not there.")] = Path(
        "engram-data"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    without_keys: WithoutKeys = False,
    root_path: RootPath = None,
    processes: Processes = None,
    grpc_port: GrpcPort = None,
) -> None:
    """Run everything on this machine: the service, a worker and a Redis of its own."""

    def run() -> int:
        from service.server.standalone import serve

        options = {"root_path": root_path, "processes": processes, "grpc_port": grpc_port}
        return serve(data, host, port, options, without_keys=without_keys)

    _run_server(run)


@app.command(rich_help_panel=HERE)
def service(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    without_keys: WithoutKeys = False,
    root_path: RootPath = None,
    processes: Processes = None,
    grpc_port: GrpcPort = None,
    member: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run one replica of the service; ENGRAM_REDIS_URL and ENGRAM_STORE_URL say where the rest is."""
    from service.cli.replica import run

    options = {"root_path": root_path, "processes": processes, "grpc_port": grpc_port}
    _run_server(lambda: run(host, port, options, without_keys=without_keys, member=member))


@app.command(rich_help_panel=HERE)
def worker(
    check: Annotated[
        bool, typer.Option("--check", help="Run none, but tell whether those that run here consume; status 1 if not.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=1, help="With --check, the longest silence of a consumer.")] = 30.0,
) -> None:
    """Run one worker; ENGRAM_REDIS_URL and ENGRAM_STORE_URL say where the rest is."""
    if check:
        asked = [sys.executable, "-P", "-m", "worker.liveness", "--seconds", str(seconds)]
        os.execve(sys.executable, asked, dict(os.environ))
    environment = {**TUNING, "OMP_NUM_THREADS": os.environ.get("ENGRAM_WORKER_THREADS", "1"), **os.environ}
    flush_standard_streams()
    os.execve(sys.executable, [sys.executable, "-P", "-m", "worker"], environment)


@app.command(rich_help_panel=HERE)
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the heatmaps.")] = Path("demo-output"),
) -> None:
    """Learn handwritten digits as five tasks and show that nothing is forgotten."""
    from service.cli.demo import run

    raise typer.Exit(run(output))


@app.command(rich_help_panel=HERE)
def digits(
    output: Annotated[Path, typer.Option(help="Folder for the archives and images.")] = Path("digits"),
) -> None:
    """Write the demo's handwritten digits: five archives to learn from, and images kept apart to try them on."""
    from service.cli.digits import write

    write(output)
    typer.echo(f"Wrote five archives to {output}/ and held-out images to {output}/held-out/.")


def main() -> None:
    """Entry point of the console script."""
    ensure_standard_streams()
    from vault.settings import explain_settings_errors

    with explain_settings_errors():
        app()


def _run_server(server: Callable[[], int]) -> NoReturn:
    """Run `server` until a signal comes, and end the process with the status that it returns."""
    stop_on_signals()
    restart_tuned()
    status = 0
    with contextlib.suppress(Stopped):
        _configure_telemetry()
        status = server()
    _end(status)


def _configure_telemetry() -> None:
    """Write the log to standard error, and send spans where the environment says, as the worker does."""
    from telemetry import logs, traces
    from vault.settings import VaultSettings, warn_of_unknown_names

    settings = VaultSettings()
    logs.configure(settings.log_level, settings.log_format, secrets=settings.secrets)
    warn_of_unknown_names(os.environ)
    traces.configure("engram-service")


def _end(status: int) -> NoReturn:
    """End the process at once: all is stopped and closed by now, but for threads that hang in the storage.

    Python would wait for these, and spend seconds on taking torch apart, which whoever restarts it would wait for.
    """
    from telemetry import traces

    traces.shutdown()
    flush_standard_streams()
    os._exit(status)
