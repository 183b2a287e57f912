"""Bytes that were tampered with are refused in our words; the long form is `python -m benchmarks fuzz`."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from testing.drills.readers import READERS, mutated

INPUTS = 400


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")  # readers of images warn of what they then refuse
def test_what_reads_strangers_bytes(tmp_path: Path, name: str) -> None:
    reader = READERS[name](tmp_path)
    assert all(reader.try_out(seed) for seed in reader.seeds), "what we begin from is sound"
    chance = random.Random(0)
    taken, slowest = 0, 0.0
    for number in range(INPUTS):
        data = mutated(reader.seeds[number % len(reader.seeds)], chance)
        began = time.process_time()  # what others do with the processors does not count
        taken += reader.try_out(data)
        slowest = max(slowest, time.process_time() - began)
    assert 0 < taken < INPUTS
    assert slowest < 10
