"""The one Celery task: decode, call, done."""

from __future__ import annotations

from celery import Celery

from worker.workshop import Workshop

WAKE = "engram.wake"
"""The name that services send."""


def register(app: Celery, workshop: Workshop) -> None:
    """Have messages for `app` worked on in `workshop`."""

    def wake(model: str) -> None:
        workshop.work(model)

    app.task(wake, name=WAKE, ignore_result=True)
