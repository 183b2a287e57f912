"""Tests of the device that a worker learns on."""

from __future__ import annotations

import pytest
import torch

from worker.resources import choose_device


def test_the_processor_when_it_is_wanted() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_a_gpu_where_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_gpu_that_is_wanted_is_not_replaced_in_silence() -> None:
    if torch.cuda.is_available():
        assert choose_device("cuda").type == "cuda"
    else:
        with pytest.raises(RuntimeError, match="ENGRAM_DEVICE"):
            choose_device("cuda")
