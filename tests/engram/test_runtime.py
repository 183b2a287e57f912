"""Tests of giving freed memory back to the operating system."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from pathlib import Path
import torch
from engram.runtime import configure, give_back_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024  # MiB

configure(1)
before = resident()
taken = [torch.ones(16 * 1024) for _ in range(3200)]  # 200 MiB
last = torch.ones(16)
full = resident()
del taken
freed = resident()
give_back_freed_memory()
print(full - before, freed - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only the C library of Linux is configured")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=240)
    full, freed, after = map(int, done.stdout.split())
    assert full > 190
    assert freed > 190
    assert after < 50
