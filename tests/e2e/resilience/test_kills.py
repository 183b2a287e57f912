"""Whatever is killed, at whatever moment: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import random
from pathlib import Path

from testing.drills.killing import KINDS, Killer, Life, faults, live_through
from testing.processes.supervised import supervised

SEED = 1


def test_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    with supervised(tmp_path, ENGRAM_MAX_ATTEMPTS="100") as (parts, vault):
        life = Life.begin(parts, vault)
        killer = Killer(parts, vault, random.Random(SEED), 5.0)
        order = killer.random.sample([*KINDS, "redis", "flushall"], 8)
        live_through(parts, vault, life, lambda: killer.kill_all(order))
        assert life.models
        assert life.predictions > 0
        assert faults(vault, life) == [], parts.log
        life.client.close()
