"""Kills of single processes of a service that has several, under load."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from testing.data.digits import png
from testing.drills.load import Load
from testing.processes.processes import children, eventually
from testing.processes.stack import Stack

_TOLD = "503 Service Unavailable"


@dataclass
class ProcessKills:
    """Observations of the clients."""

    kills: int = 0
    answers: int = 0
    told: int = 0
    """Requests that were answered 503, since their process had died."""
    counted: int = 0
    """How many of these the service says there were."""
    failures: list[str] = field(default_factory=list)
    """All else that went wrong: broken connections, and other answers."""
    slowest: float = 0.0
    """Seconds."""
    slowest_start: float = 0.0
    """Seconds from a kill until all processes took requests again."""


def members(stack: Stack) -> list[int]:
    """The processes of the first replica but its first."""
    return [pid for pid, line in children(stack.services[0].pid).items() if "--member" in line]


def metric(stack: Stack, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    text = stack.client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def taking(stack: Stack) -> int:
    """How many processes take requests, as the service says."""
    return round(metric(stack, "engram_service_processes"))


def interrupted(stack: Stack) -> int:
    """How many requests' processes have died, as the service says."""
    return round(metric(stack, "engram_refused_requests_total", kind="interrupted"))


def kill_processes(stack: Stack, model: str, kills: int, connections: int) -> ProcessKills:
    """Kill one process after another of the only replica, while clients predict on connections that they keep."""
    found, processes, before = ProcessKills(), taking(stack), interrupted(stack)
    with Load(stack.replicas, model, png(0, 0), connections) as load:
        while found.kills < kills:
            victim = members(stack)[found.kills % (processes - 1)]
            # By another process, while this one only asks: whoever looks for a victim himself asks nothing meanwhile.
            subprocess.run(["/bin/sh", "-c", f"sleep 0.5; kill -9 {victim}"], check=True)
            began = time.monotonic()
            found.kills += 1
            assert eventually(lambda: taking(stack) == processes - 1, 10), "nobody misses it"
            assert eventually(lambda: taking(stack) == processes, 60), "it is not replaced"
            found.slowest_start = max(found.slowest_start, round(time.monotonic() - began, 2))
    found.answers, found.slowest = load.answers, round(load.slowest, 3)
    found.failures = [failure for failure in load.failures if _TOLD not in failure]
    found.told, found.counted = len(load.failures) - len(found.failures), interrupted(stack) - before
    return found
