"""`python -m worker`: one worker process, until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial

from vault.vault import Vault
from worker.app import bind, create_app, send_wake
from worker.device import prepare
from worker.settings import WorkerSettings
from worker.workshop import Reconciler, Workshop


def main() -> int:
    """Run a worker with the settings of the environment; returns the exit status."""
    settings = WorkerSettings()
    level = os.environ.get("ENGRAM_LOG_LEVEL", "INFO").upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    prepare(settings.worker_threads)
    with Vault.connect(settings) as vault:
        workshop = Workshop(vault, settings)
        app = create_app(settings.redis_url)
        reconciler = Reconciler(vault, workshop, partial(send_wake, app), settings.reconcile_seconds)
        bind(app, workshop, reconciler)
        arguments = ["worker", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", level]
        try:
            app.worker_main(arguments)
        finally:
            workshop.stopping.set()
            reconciler.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
