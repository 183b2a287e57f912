"""Outage of Redis under load, while a task is learned."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from testing.data.digits import archive, png
from testing.drills.load import Load
from testing.processes.processes import eventually
from testing.processes.stack import Stack

ANSWERING, LEARNING = "answering", "learning"
LONG = {"epochs": 400, "patience": 400, "recovery_epochs": 1}
"""Options of a task that takes some seconds."""


@dataclass
class Outage:
    """Observations during and after the outage."""

    seconds: float
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    submissions: list[tuple[int, str, bool]] = field(default_factory=list)
    """Status, code, and presence of Retry-After of each submission during the outage."""
    half_accepted: list[str] = field(default_factory=list)
    """Objects that refused submissions left in the store."""
    state_meanwhile: str = ""
    """State of the running job at the end of the outage."""
    accepted_after: float = 0.0
    """Seconds from Redis's return to the first submission that was accepted."""
    learned_after: float = 0.0
    """Seconds from Redis's return to the end of the job that was running."""
    finished_after: float = 0.0
    """Seconds from Redis's return to the end of the job that was accepted after it."""
    jobs: dict[str, str] = field(default_factory=dict)
    """States of both jobs at the end."""
    attempts: int = 0
    """Attempts at the running job."""
    versions: list[int] = field(default_factory=list)
    """Versions of the learning model at the end."""


def run_outage(stack: Stack, seconds: float, connections: int = 16, pause: float = 0.0, **options: Any) -> Outage:
    """Stop Redis for so many seconds under a `Load`; `options` are those of the job that runs meanwhile."""
    found = Outage(seconds)
    for model in (ANSWERING, LEARNING):
        stack.create(model)
    stack.learn(ANSWERING, "first", (0, 1))
    running = stack.submit(LEARNING, "first", archive((0, 1)), LONG | options)
    assert running.status_code == 202, running.text
    job = running.headers["Location"]
    assert eventually(lambda: stack.client.get(job).json()["phase"] not in (None, "loading"), 120), "it does not begin"
    with Load(stack.replicas, ANSWERING, png(0, 100), connections, pause) as load:
        before = stack.objects()
        stack.redis.stop()
        gone = time.monotonic()
        while time.monotonic() - gone < seconds:
            answer = stack.submit(ANSWERING, "second", archive((2, 3), 10))
            refusal = answer.json().get("code", "") if answer.status_code != 202 else "accepted"
            found.submissions.append((answer.status_code, refusal, "Retry-After" in answer.headers))
            time.sleep(min(1.0, max(0.0, seconds - (time.monotonic() - gone))))
        found.half_accepted = sorted(path for path in stack.objects() - before if path.startswith(("open/", "data/")))
        found.state_meanwhile = stack.client.get(job).json()["state"]
        stack.redis.start()
        back = time.monotonic()
        accepted = _first_accepted(stack)
        found.accepted_after = round(time.monotonic() - back, 2)
        learned = stack.finish(running, 600)
        found.learned_after = round(time.monotonic() - back, 2)
        second = stack.finish(accepted, 600)
        found.finished_after = round(time.monotonic() - back, 2)
    found.answers, found.failures, found.slowest = load.answers, load.failures, round(load.slowest, 3)
    found.jobs = {"running": learned["state"], "after": second["state"]}
    found.attempts = learned["attempts"]
    versions = stack.client.get(f"/v1/models/{LEARNING}/versions").json()["versions"]
    found.versions = [version["version"] for version in versions]
    return found


def _first_accepted(stack: Stack) -> httpx.Response:
    """The first submission that is accepted."""
    while True:
        answer = stack.submit(ANSWERING, "second", archive((2, 3)))
        if answer.status_code == 202:
            return answer
        assert answer.status_code == 503, answer.text
        time.sleep(0.1)
