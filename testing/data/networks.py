"""Networks as users bring them: safetensors files with random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import safetensors.torch
import torch

from engram.nn.pretrained.architectures import architecture

ARCHITECTURE = "torchvision/mobilenet_v3_small"
CLASSES = ("ant", "bee", "crab", "dog")
SIZE = 32
"""Side of its images, so that tests are quick."""


@cache
def weights(seed: int = 0) -> bytes:
    """A small network of four classes; about 6 MB."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = architecture(ARCHITECTURE).build({"num_classes": len(CLASSES)})
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})


DESCRIPTION: dict[str, Any] = {
    "architecture": "torchvision/resnet18",
    "library": "torchvision 0.28.0",
    "weights": "0" * 64,
    "bytes": 8,
    "parameters": 1,
    "operations": 1,
    "preprocessing": {"size": SIZE, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "levels": [{"name": "layer1", "channels": 64, "reduction": 4}],
    "features": 512,
    "outputs": 0,
    "format": 1,
}
"""A description, as it is stored, of a network that is not there."""
