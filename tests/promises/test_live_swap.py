"""While tasks are learned and published, both replicas answer every request, and soon with the new version."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from tests.digits import png
from tests.promises.load import Load
from tests.promises.processes import eventually
from tests.promises.stack import Stack

MODEL = "swap"
SECONDS = 2.0
"""A new version is to serve within so many seconds of its publication."""


def test_no_request_fails_and_new_versions_serve_soon_on_both_replicas(stack: Stack) -> None:
    stack.create(MODEL)
    stack.learn(MODEL, "first", (0, 1))
    with Load(stack.replicas, MODEL, png(0, 100)) as load:
        assert eventually(partial(load.serves, 1), 60)
        for number, (task, digits) in enumerate((("second", (2, 3)), ("third", (4, 5))), 2):
            assert stack.learn(MODEL, task, digits, epochs=30, patience=30)["version"] == number
            assert eventually(partial(load.serves, number), 40)
    assert load.failures == []
    assert load.versions == {1, 2, 3}
    assert load.answers > 100
    for number in (2, 3):
        commit = stack.client.get(f"/v1/models/{MODEL}/versions/{number}").json()
        published = datetime.fromisoformat(commit["created_at"]).timestamp()
        for replica in stack.replicas:
            assert load.first_seen[replica, number] - published < SECONDS
