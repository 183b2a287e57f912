"""Tests of what is loaded when a service starts, and what is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRELOADS = """
from service.lifecycle.preloading import preload_torch
preload_torch().join()
assert "torch" not in sys.modules
assert "libtorch_cpu.so" in open("/proc/self/maps").read()
import torch
assert float(torch.ones(3).sum()) == 3
"""
HAS_NO_TORCH = """
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
from service.lifecycle.preloading import preload_torch
preload_torch().join()
assert "torch" not in open("/proc/self/maps").read()
"""
COUNTS = """
from service.auth.quotas import Quotas
from vault.keys import KeyLimits
Quotas("redis://localhost", None, KeyLimits())
assert "redis" in sys.modules and "valkey" not in sys.modules, "which takes as long again, and is never used"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the library has another name")
@pytest.mark.parametrize("program", [PRELOADS, HAS_NO_TORCH, COUNTS], ids=["torch", "no torch", "no other client"])
def test_a_start_loads_what_it_needs_and_no_more(program: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
