"""Test of version swaps under load."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from testing.data.digits import archive, png
from testing.drills.load import Load
from testing.processes.processes import eventually
from testing.processes.stack import Stack

MODEL = "swap"
SECONDS = 2.0
"""Seconds after its publication within which a new version must serve."""


def test_no_request_fails_and_new_versions_serve_soon_on_both_replicas(stack: Stack) -> None:
    stack.create(MODEL)
    stack.learn(MODEL, "first", (0, 1))
    with Load(stack.replicas, MODEL, png(0, 100), connections=8, pause=0.02) as load:
        assert eventually(partial(load.serves, 1), 60)
        for number, (task, digits) in enumerate((("second", (2, 3)), ("third", (4, 5))), 2):
            # Only the load requests the model: another request would make a replica read its newest version.
            job = stack.finish(stack.submit(MODEL, task, archive(digits), {"epochs": 30, "patience": 30}))
            assert job["result"]["version"] == number
            assert eventually(partial(load.serves, number), 60)
    assert load.failures == []
    assert load.versions == {1, 2, 3}
    assert load.answers > 100
    commits = {number: stack.client.get(f"/v1/models/{MODEL}/versions/{number}").json() for number in (2, 3)}
    published = {number: datetime.fromisoformat(commit["created_at"]).timestamp() for number, commit in commits.items()}
    for replica in stack.replicas:
        # The quicker of the two: when the machine is busy elsewhere, either may have to wait for a processor.
        assert min(load.first_seen[replica, number] - moment for number, moment in published.items()) < SECONDS
