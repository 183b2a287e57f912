"""`python -m worker`: one worker process, until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import sys
import warnings
from functools import partial

from vault.vault import Vault
from worker.app import bind, create_app, send_wake
from worker.device import prepare
from worker.settings import WorkerSettings
from worker.workshop import Reconciler, Workshop


def main() -> int:
    """Run a worker with the settings of the environment; returns the exit status."""
    settings = WorkerSettings()
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    # It warns of unpickling as root; messages are JSON, and nothing unpickles.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")
    prepare(settings.worker_threads, settings.device)
    with Vault.connect(settings) as vault:
        workshop = Workshop(vault, settings)
        app = create_app(settings.redis_url)
        reconciler = Reconciler(vault, workshop, partial(send_wake, app), settings.reconcile_seconds)
        bind(app, workshop, reconciler)
        quietly = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", settings.log_level]
        try:
            app.worker_main(["--quiet", "worker", *quietly])
        finally:
            workshop.stopping.set()
            reconciler.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
