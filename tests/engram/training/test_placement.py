"""Tests of images on the device that learns from them: the same values in fewer copies."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch.utils import backend_registration

from engram.runtime import Placement
from testing.data.patterns import SIZE


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch knows no devices that are written in Python",
)
def test_images_are_sent_once_where_there_is_room_for_them() -> None:
    command = [sys.executable, "-m", "tests.engram.training.placements"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert all(one["found"] == found["here"]["found"] for one in found.values()), "values are where they may"
    whole, image = 600 * SIZE * SIZE, SIZE * SIZE
    twice = [512 * image, 88 * image] * 2
    sent = {way: one["sent"] for way, one in found.items()}
    assert sent == {"here": [], "once": [whole], "others": twice, "later": [whole], "batches": twice}


def test_rows_are_those_that_were_chosen() -> None:
    values, chosen = torch.arange(60, dtype=torch.uint8).reshape(20, 3), torch.tensor([7, 0, 7, 19])
    for room in (0, 60):
        # Another name of the processor, to which values are sent as to a GPU.
        rows = Placement(torch.device("cpu", 0), room).rows(values, chosen)
        assert rows.equal(values[chosen])
    assert Placement(torch.device("cpu")).rows(values, chosen).equal(values[chosen])
