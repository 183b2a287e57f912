"""Celery message that wakes a worker for a model with a job."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from vault.coordination.connection import keepalive
from vault.settings import broker_url

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger("engram.service")


class WakeupSender:
    """Sender of the wake-up message, which may get lost: workers look for open jobs by themselves, too."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._lock = threading.Lock()
        self._app: Celery | None = None

    def _sender(self) -> Celery:
        """The application that sends, made when it is first needed: importing Celery would delay the first answer."""
        from celery import Celery

        with self._lock:
            if self._app is None:
                self._app = Celery("engram", broker=broker_url(self._redis_url), set_as_current=False)
                self._app.conf.update(
                    task_serializer="json",
                    accept_content=["json"],
                    task_ignore_result=True,
                    broker_transport_options={
                        "socket_timeout": 2.0,
                        "socket_connect_timeout": 2.0,
                        "max_retries": 1,
                        "interval_start": 0,
                        "interval_step": 0,
                        **keepalive(self._redis_url),
                    },
                )
            return self._app

    def wake(self, model: str) -> None:
        """Send the message; a broker that cannot be reached is only logged, since the job is stored already.

        The connection of before may be dead without anybody having been told: the second try opens another.
        """
        from kombu.exceptions import OperationalError

        app = self._sender()
        for last in (False, True):
            try:
                app.send_task("engram.wake", args=[model], queue="engram", ignore_result=True, retry=False)
                return
            except (OperationalError, RedisError, OSError) as error:
                if last:
                    log.warning("no worker could be told of model %s; they will look by themselves: %s", model, error)

    def close(self) -> None:
        """Give the connections back."""
        with self._lock:
            if self._app is not None:
                self._app.close()
