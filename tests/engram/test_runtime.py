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


def test_what_is_set_aside_is_passed_over_until_all_is_looked_at() -> None:
    """In a process of its own, as it would be left with what is set aside."""
    program = """
import gc, weakref
from engram.runtime import look_at_all, set_aside, set_more_aside

class Circle:
    def __init__(self):
        self.itself = self

def gone(reference):
    gc.collect()
    return reference() is None

gc.disable()
set_more_aside()
assert gc.get_freeze_count() == 0, "nothing was set aside before"
early = Circle()
set_aside()
late, reference = Circle(), weakref.ref(early)
alone = [weakref.ref(late)]
del early
assert not gone(reference), "it was set aside"
look_at_all()
assert gone(reference)
count = gc.get_freeze_count()
set_more_aside()
assert gc.get_freeze_count() >= count
del late
assert not gone(alone[0])

class Plain:
    pass

plain = Plain()
set_more_aside()
reference = weakref.ref(plain)
del plain
assert reference() is None, "what is in no circle needs no collection"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_from_the_end_of_imports_on_garbage_is_collected_but_none_of_theirs() -> None:
    """In a process of its own, which begins as a server does."""
    program = """
import gc, weakref
gc.disable()
from engram.runtime import look_at_all, set_aside_imports

class Circle:
    def __init__(self):
        self.itself = self

early = Circle()
known = weakref.ref(early)
del early
set_aside_imports()
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000, "PyTorch is set aside"
late = Circle()
reference = weakref.ref(late)
del late
gc.collect()
assert reference() is None
assert known() is not None, "nobody looked"
look_at_all()
assert known() is None
"""
    subprocess.run([sys.executable, "-c", program], check=True)
