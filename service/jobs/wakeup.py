"""Celery message that wakes a worker for a model with a job."""

from __future__ import annotations

import logging

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from vault.coordination.connection import keepalive
from vault.settings import broker_url

log = logging.getLogger("engram.service")


class WakeupSender:
    """Sender of the wake-up message, which may get lost: workers look for open jobs by themselves, too."""

    def __init__(self, redis_url: str) -> None:
        self._app = Celery("engram", broker=broker_url(redis_url), set_as_current=False)
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
                **keepalive(redis_url),
            },
        )

    def wake(self, model: str) -> None:
        """Send the message; a broker that cannot be reached is only logged, since the job is stored already.

        The connection of before may be dead without anybody having been told: the second try opens another.
        """
        for last in (False, True):
            try:
                self._app.send_task("engram.wake", args=[model], queue="engram", ignore_result=True, retry=False)
                return
            except (OperationalError, RedisError, OSError) as error:
                if last:
                    log.warning("no worker could be told of model %s; they will look by themselves: %s", model, error)

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()
