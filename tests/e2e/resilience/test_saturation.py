"""Test of overload: refusals with Retry-After, and no growth."""

from __future__ import annotations

from functools import partial

import httpx

from testing.drills.crowd import Crowd, Learning, prepare
from testing.drills.growth import MIB, sample
from testing.processes.processes import eventually
from testing.processes.stack import Stack
from vault.storage.parallel import THREADS

KINDS = {"predict", "batch", "explain", "events", "not an image"}


def test_a_crowd_is_served_or_told_to_come_back(rough_stack: Stack) -> None:
    job = prepare(rough_stack)
    [service] = rough_stack.services
    address = rough_stack.replicas[0]
    with Crowd(address, job, 60) as crowd, Learning(rough_stack) as learning:

        def busy(answers: int) -> bool:
            refused = crowd.refused["predict"] + crowd.refused["batch"]
            return crowd.statuses[200] > answers and set(crowd.seconds) >= KINDS and refused > 0

        assert eventually(partial(busy, 50), 240)  # until pools and caches are full
        before = sample(service.pid)
        checks = [httpx.get(f"{address}/livez", timeout=60).status_code for _ in range(3)]
        assert eventually(partial(busy, crowd.statuses[200] + 150), 240)
    assert crowd.wrong == []
    assert learning.wrong == []
    assert checks == [200] * 3
    assert set(learning.jobs) <= {"succeeded"}
    # Connections are given back, and what was asked for is forgotten.
    assert eventually(lambda: sample(service.pid).files <= before.files, 120)
    after = sample(service.pid)
    assert after.threads <= before.threads + 8 + THREADS  # readers begin when there is something to read
    assert after.rss - before.rss < 200 * MIB
