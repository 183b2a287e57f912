"""Tests of the device that a worker learns on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from engram.errors import DeviceMissing
from worker.resources import chosen

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_the_processor_when_it_is_wanted() -> None:
    assert chosen("cpu") == torch.device("cpu")


def test_a_gpu_where_there_is_one() -> None:
    assert chosen("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@WITHOUT_GPU
def test_a_gpu_that_is_wanted_is_not_replaced_in_silence() -> None:
    with pytest.raises(DeviceMissing, match="ENGRAM_DEVICE is cuda"):
        chosen("cuda")


@WITHOUT_GPU
def test_a_worker_without_the_gpu_that_is_wanted_says_that_a_restart_would_not_help() -> None:
    environment = {**os.environ, "ENGRAM_DEVICE": "cuda"}
    command = [sys.executable, "-P", "-m", "worker"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == os.EX_CONFIG
    assert "device_missing" in done.stderr
    assert "Traceback" not in done.stderr
