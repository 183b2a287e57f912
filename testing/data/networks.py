"""Networks as users bring them: safetensors files with random weights."""

from __future__ import annotations

from functools import cache

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
