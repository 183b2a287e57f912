"""Test of killed processes: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import random
from pathlib import Path

from testing.drills.killing import KINDS, Killer, Workload, faults, run_during
from testing.processes.supervised import supervised

SEED = 1


def test_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    with supervised(tmp_path, ENGRAM_MAX_ATTEMPTS="100") as (parts, vault):
        workload = Workload.prepare(parts, vault)
        killer = Killer(parts, vault, random.Random(SEED), 5.0)
        order = killer.random.sample(KINDS, len(KINDS))
        run_during(workload, lambda: killer.kill_all(order))
        assert workload.models
        assert workload.predictions > 0
        assert faults(vault, workload) == [], parts.log
        workload.client.close()
