"""Silence of the network between all processes and Redis: nothing arrives, and nothing is closed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial

import httpx

from testing.data.digits import archive, png
from testing.drills.load import Load
from testing.processes.processes import eventually
from testing.processes.stack import Stack
from testing.servers.silent_proxy import SilentProxy

MODEL = "digits"


@dataclass
class Silence:
    """Observations during and after a silence."""

    seconds: float
    old: bool
    """Whether the connections of before speak again, or only new ones do."""
    answers: int = 0
    """Predictions meanwhile."""
    failures: list[str] = field(default_factory=list)
    accepted_after: float = 0.0
    """Seconds from the network's return to the first submission that was accepted."""
    taken_after: float = 0.0
    """Seconds from the network's return to the moment at which a worker takes the job."""
    job: str = ""
    """State of the job at the end."""
    restarted: bool = False
    """Whether the worker ended, to be started again."""


def run_silence(
    stack: Stack, proxy: SilentProxy, seconds: float, *, old: bool, connections: int = 4, pause: float = 0.0
) -> Silence:
    """Have the network silent for so many seconds, then submit a task; the model is made if it is not there."""
    found = Silence(seconds, old)
    if stack.client.get(f"/v1/models/{MODEL}").status_code == 404:
        stack.create(MODEL)
        stack.learn(MODEL, "first", (0, 1))
    number = len(stack.client.get(f"/v1/models/{MODEL}").json()["tasks"])
    assert eventually(partial(consumes, stack), 60), "the worker does not say that it consumes"
    with Load(stack.replicas, MODEL, png(0, 100), connections, pause) as load:
        proxy.fall_silent()
        time.sleep(seconds)
        proxy.speak(old=old)
        back = time.monotonic()
        accepted = _first_accepted(stack, f"task {number + 1}")
        found.accepted_after = round(time.monotonic() - back, 2)
        job = accepted.headers["Location"]
        assert eventually(lambda: stack.client.get(job).json()["attempts"] > 0, 120), "no worker takes the job"
        found.taken_after = round(time.monotonic() - back, 2)
        found.job = stack.finish(accepted)["state"]
    found.answers, found.failures = load.answers, load.failures
    found.restarted = stack.worker.poll() is not None
    return found


def consumes(stack: Stack, seconds: float = 10.0) -> bool:
    """What the check of the stack's worker says."""
    command = [sys.executable, "-P", "-m", "worker.liveness", "--seconds", str(seconds)]
    environment = {**os.environ, "TMPDIR": str(stack.temporary)}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


def _first_accepted(stack: Stack, task: str) -> httpx.Response:
    while True:
        answer = stack.submit(MODEL, task, archive((2, 3)))
        if answer.status_code == 202:
            return answer
        assert answer.status_code == 503, answer.text
        time.sleep(0.1)
