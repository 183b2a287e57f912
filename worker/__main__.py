"""Entry point of `python -m worker`: one worker process, until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from functools import partial

from engram import runtime
from engram.errors import DeviceMissing
from telemetry import logs, traces
from telemetry.standard_streams import ensure_standard_streams
from vault.coordination.connection import reachable
from vault.errors import UnsoundStore, UnsuitableRedis
from vault.settings import explain_settings_errors, warn_of_unknown_names
from vault.vault import Vault
from worker import metrics, resources
from worker.background import Reconciler, Sweeper
from worker.celery_app import bind, create_app, send_wakeup
from worker.interruption import HangUp
from worker.job_runner import JobRunner
from worker.liveness import ConsumerWatch, Pulse
from worker.settings import WorkerSettings

log = logging.getLogger("engram.worker")


def main() -> int:
    """Run a worker with the settings of the environment; returns the exit status."""
    ensure_standard_streams()
    with explain_settings_errors():
        settings = WorkerSettings()
    logs.configure(settings.log_level, settings.log_format, secrets=settings.secrets)
    warn_of_unknown_names(os.environ)
    traces.configure("engram-worker")
    # It warns of unpickling as root; messages are JSON, and nothing unpickles.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")
    # It warns of this whenever the broker was lost; messages are acknowledged early, and no such task is cancelled.
    warnings.filterwarnings("ignore", message=r"\s*In Celery 5\.1 we introduced")
    if settings.worker_metrics_port:
        metrics.serve(settings.worker_metrics_host, settings.worker_metrics_port)
    pulse = Pulse()
    try:
        resources.prepare(settings.worker_threads, settings.device)
    except DeviceMissing as error:
        log.critical("%s", error, extra={"code": error.code})
        return os.EX_CONFIG
    resources.limit_memory(settings)
    with Vault.connect(settings) as vault:
        try:
            vault.check_at_start(lambda: os.kill(os.getpid(), signal.SIGTERM))
        except (UnsoundStore, UnsuitableRedis) as error:
            log.critical("%s", error, extra={"code": error.code})
            return os.EX_CONFIG
        job_runner = JobRunner(vault, settings)
        app = create_app(settings.redis_url)
        reconciler = Reconciler(vault, job_runner, partial(send_wakeup, app), settings.reconcile_seconds)
        bind(app, job_runner, reconciler, pulse)
        HangUp.ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        app.steps["worker"].add(HangUp)
        watch = ConsumerWatch(
            pulse,
            lambda: job_runner.busy or job_runner.stopping.is_set(),
            partial(reachable, settings.redis_url),
            settings.deaf_seconds,
            _end_deaf,
        )
        metrics.silence.set_function(lambda: watch.silent)
        watch.start()
        runtime.set_aside_imports()
        sweeper = Sweeper(vault, settings.sweep_seconds)
        sweeper.start()
        quietly = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", settings.log_level]
        # Celery's own words at the end, which are no line of the log, go nowhere.
        sys.__stdout__ = None  # type: ignore[misc]
        try:
            app.worker_main(["--quiet", "worker", *quietly])
        finally:
            job_runner.stopping.set()
            watch.stop()
            reconciler.stop()
            sweeper.stop()
            pulse.close()
            log.info("the worker has stopped")
            traces.shutdown()
    return 0


def _end_deaf(seconds: float) -> None:
    """End the process at once: it is idle, and no message reaches it any more."""
    log.error("the broker has not answered for %.0f s, but answers new connections: to be started again", seconds)
    sys.stderr.flush()
    os._exit(os.EX_TEMPFAIL)


if __name__ == "__main__":
    sys.exit(main())
