"""Tests of mutated inputs of every parser of untrusted bytes.

The long form is `python -m benchmarks fuzz`.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from testing.drills.readers import READERS, mutated

INPUTS = 400


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")  # image decoders warn before they refuse
def test_what_reads_strangers_bytes(tmp_path: Path, name: str) -> None:
    reader = READERS[name](tmp_path)
    assert all(reader.accepts(seed) for seed in reader.seeds), "seeds are valid"
    chance = random.Random(0)
    taken, slowest = 0, 0.0
    for number in range(INPUTS):
        data = mutated(reader.seeds[number % len(reader.seeds)], chance)
        began = time.process_time()  # other processes do not count
        taken += reader.accepts(data)
        slowest = max(slowest, time.process_time() - began)
    assert 0 < taken < INPUTS
    assert slowest < 10
