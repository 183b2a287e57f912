"""Celery app of a worker, with one slot and one task, whose messages only wake it."""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery, signals
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from vault.settings import broker_url
from worker.background import Reconciler
from worker.job_runner import JobRunner

log = logging.getLogger("engram.worker")

QUEUE = "engram"
WAKE_TASK = "engram.wake"
"""The name of the task, which services send."""


def create_app(redis_url: str) -> Celery:
    """Celery on the given Redis.

    Messages are acknowledged before they are worked on: a job's record and lease decide who works on it, and Redis
    would deliver the message of a long job a second time.
    """
    app = Celery("engram", broker=broker_url(redis_url), set_as_current=True)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_default_queue=QUEUE,
        task_acks_late=False,
        worker_pool="threads",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
    )
    return app


def send_wakeup(app: Celery, model: str) -> None:
    """Wake whichever worker is free; a broker that cannot be reached is logged, for it will be tried again."""
    try:
        app.send_task(WAKE_TASK, args=[model], queue=QUEUE, ignore_result=True, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("no worker could be told of %s: %s", model, error)


def bind(app: Celery, job_runner: JobRunner, reconciler: Reconciler) -> None:
    """Have messages worked on in `job_runner`, and both end when the worker is to stop."""
    _register(app, job_runner)

    def begin(**_: Any) -> None:
        reconciler.start()

    def stop(**_: Any) -> None:
        job_runner.stopping.set()

    def leave_logging_alone(**_: Any) -> None:
        """Do nothing: that this is connected keeps Celery from setting up handlers and taking output for log lines."""

    # Strong references: the functions would be gone when this one returns.
    signals.setup_logging.connect(leave_logging_alone, weak=False)
    signals.worker_ready.connect(begin, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)


def _register(app: Celery, job_runner: JobRunner) -> None:
    """Have messages for `app` worked on in `job_runner`."""

    def wake(model: str) -> None:
        job_runner.work(model)

    app.task(wake, name=WAKE_TASK, ignore_result=True)
