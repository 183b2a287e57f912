"""Judging of an engram on the second device, its images sent in several ways, in a process of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from engram.data.examples import Examples
from engram.nn.backbones import layout_of
from engram.nn.network import Engram, Network
from engram.runtime import Placement
from engram.training.measuring import measure
from testing.data.patterns import bars, definition
from testing.processes import second_device


def judged(engram: Engram, examples: Examples, placement: Placement) -> dict[str, Any]:
    """What an engram is found to be twice, and the bytes of each copy of images to the device meanwhile."""
    second_device.sent.clear()
    found = [measure(Network(engram.layout), engram, examples, placement) for _ in range(2)]
    sent = [count for dtype, count in second_device.sent if dtype == torch.uint8]
    return {"found": [[each.loss, each.accuracy] for each in found], "sent": sent}


def main() -> dict[str, Any]:
    """By way of sending."""
    layout, examples = layout_of(definition("cnn", 1)), bars(0, 300)
    engram = Engram(layout, "task", ("a", "b"), dict.fromkeys(layout.layers, 0), dict(layout.widths), ()).freeze()
    found = {"here": judged(engram, examples, Placement(torch.device("cpu")))}
    device = second_device.register()
    engram.to(device)
    whole = examples.images.nbytes + examples.labels.nbytes
    tight = Placement(device, whole)
    found |= {"once": judged(engram, examples, tight), "others": judged(engram, bars(0, 300), tight)}
    del examples
    found["later"] = judged(engram, bars(0, 300), tight)
    found["batches"] = judged(engram, bars(0, 300), Placement(device, whole - 1))
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    json.dump(main(), sys.stdout)
