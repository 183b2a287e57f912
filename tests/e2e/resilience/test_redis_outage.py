"""Test of a Redis outage during predictions, learning and submissions."""

from __future__ import annotations

from testing.drills.redis_outage import run_outage
from testing.processes.stack import Stack


def test_without_redis_predictions_go_on_and_afterwards_all_is_well(rough_stack: Stack) -> None:
    found = run_outage(rough_stack, 3.0, connections=4, pause=0.05, epochs=300, patience=300)
    assert found.failures == []
    assert found.answers > 50
    assert set(found.submissions) == {(503, "redis_unavailable", True)}
    assert found.half_accepted == []
    assert found.jobs == {"running": "succeeded", "after": "succeeded"}
    assert found.versions == [1, 0]
