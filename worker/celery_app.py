"""Celery app of a worker, with one slot and one task, whose messages only wake it."""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery, bootsteps, signals
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from kombu.transport.virtual import Empty
from redis.exceptions import RedisError

from vault.coordination.connection import keepalive
from vault.settings import broker_url
from worker.background import Reconciler
from worker.job_runner import JobRunner
from worker.liveness import Pulse

log = logging.getLogger("engram.worker")

QUEUE = "engram"
WAKE_TASK = "engram.wake"
"""The name of the task, which services send."""

_HEALTH_SECONDS = 5
"""A consumer that is not answered for twice as long, and a second, opens another connection."""
_RETRY = {"interval_start": 1, "interval_step": 1, "interval_max": 5}
"""Seconds between two tries to connect: the library's own, up to half a minute, would be added to every outage."""


class _BrokerConnection(Connection):
    """Connection that is tried again every few seconds, however long the broker has been away."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """As in kombu."""
        return super().ensure_connection(*args, **{**_RETRY, **options})  # type: ignore[no-untyped-call]


class _Broker(AMQP):  # type: ignore[misc]  # Celery has no annotations
    Connection = _BrokerConnection


def create_app(redis_url: str) -> Celery:
    """Celery on the given Redis.

    Messages are acknowledged before they are worked on: a job's record and lease decide who works on it, and Redis
    would deliver the message of a long job a second time.
    """
    app = Celery("engram", broker=broker_url(redis_url), amqp=_Broker, set_as_current=True)
    app.conf.update(
        # A connection may be lost without a word: whatever waits for an answer stops waiting.
        broker_transport_options={
            "socket_connect_timeout": 2.0,
            "socket_timeout": 2.0,
            "health_check_interval": _HEALTH_SECONDS,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
            **keepalive(redis_url),
        },
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
    """Wake whichever worker is free; a broker that cannot be reached is logged, for it will be tried again.

    The connection of before may be dead without anybody having been told: the second try opens another.
    """
    for last in (False, True):
        try:
            app.send_task(WAKE_TASK, args=[model], queue=QUEUE, ignore_result=True, retry=False)
            return
        except (OperationalError, RedisError, OSError) as error:
            if last:
                log.warning("no worker could be told of %s: %s", model, error)


def bind(app: Celery, job_runner: JobRunner, reconciler: Reconciler, pulse: Pulse) -> None:
    """Have messages worked on in `job_runner`, and both end when the worker is to stop; the consumer beats `pulse`."""
    _register(app, job_runner)
    app.steps["consumer"].add(_beating(pulse))

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


def _beating(pulse: Pulse) -> type[bootsteps.StartStopStep]:
    """The step of the consumer that beats `pulse` whenever the broker answers it, with a message or without one."""

    class Beating(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no annotations
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            handlers = consumer.task_consumer.channel.handlers
            read = handlers["BRPOP"]

            def heard(**options: Any) -> Any:
                try:
                    taken = read(**options)
                except Empty:  # no message within a second: that is an answer, too
                    pulse.beat()
                    raise
                pulse.beat()
                return taken

            handlers["BRPOP"] = heard

    return Beating


def _register(app: Celery, job_runner: JobRunner) -> None:
    """Have messages for `app` worked on in `job_runner`."""

    def wake(model: str) -> None:
        job_runner.work(model)

    app.task(wake, name=WAKE_TASK, ignore_result=True)
