"""Random networks whose engrams read some units of each other, and a slow reference of their answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy
import torch
from torch import Tensor

from engram.nn.backbones import layout_of
from engram.nn.layout import Layout
from engram.nn.network import Engram, Network
from engram.nn.reads import Read
from engram.nn.shapes import Rows
from testing.data.patterns import definition

WIDTHS = {"mlp": 0.1, "cnn": 0.4, "resnet18": 0.1, "resnet50": 0.05}


def random_reads(layout: Layout, stack: Sequence[Engram], drawn: random.Random) -> tuple[Read, ...]:
    """Some units of some layers of some engrams, perhaps none at all."""
    reads = []
    for engram in stack:
        units = {}
        for layer in layout.layers:
            count = drawn.randint(0, engram.units[layer])
            if count and drawn.random() < 0.6:
                units[layer] = torch.tensor(sorted(drawn.sample(range(engram.units[layer]), count)))
        if units and drawn.random() < 0.8:
            reads.append(Read(engram.task, units))
    return tuple(reads)


@torch.no_grad()
def random_network(backbone: str, owners: int = 4, seed: int = 0, channels: int = 1, width: float = 0.0) -> Network:
    """Engrams of different widths with random weights, each reading of the two before it."""
    torch.manual_seed(seed)
    drawn = random.Random(seed)
    layout = layout_of(definition(backbone, channels, width=width or WIDTHS[backbone]))
    network = Network(layout)
    for number in range(owners):
        reads = random_reads(layout, network.stack[-2:], drawn)
        units = {layer: drawn.randint(max(1, width // 2), width) for layer, width in layout.widths.items()}
        network = network.appended(random_engram(layout, f"task {number}", reads, units))
    return network


@torch.no_grad()
def random_engram(layout: Layout, task: str, reads: Sequence[Read], units: Mapping[str, int]) -> Engram:
    """A frozen engram with random weights, normalisation statistics included."""
    engram = Engram.reading(layout, task, ("a", "b", "c"), reads, units)
    for name, value in engram.state_dict().items():
        if "running_mean" in name or "norm.bias" in name:
            value.normal_(0, 0.2)
        elif "running_var" in name or "norm.weight" in name:
            value.uniform_(0.5, 1.5)
    return engram.freeze()


@torch.no_grad()
def slow_answers(network: Network, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Features and logits of every task: all owners are computed whole, and columns are picked one by one."""
    layout, values, answers = network.layout, dict[str, dict[str, Tensor]](), {}
    for engram in network.stack:
        joined: dict[str, Tensor] = {}
        for node in layout.nodes:
            picked = [
                values[read.owner][node.name][:, unit * node.per_unit + place]
                for read in engram.reads or ()
                for unit in read.units.get(node.layer, torch.zeros(0)).tolist()
                for place in range(node.per_unit)
            ]
            if picked:
                joined[node.name] = torch.stack(picked, 1)
        values[engram.task] = {}
        longer = engram(images, joined, values[engram.task])
        answers[engram.task] = (longer[layout.features.name], engram.logits(longer))
    return answers


def asked_rows(network: Network, images: int, most: int, seed: int) -> dict[str, Rows]:
    """For each task up to `most` rows of so many images."""
    generator = numpy.random.default_rng(seed)
    return {
        engram.task: numpy.sort(generator.choice(images, generator.integers(1, most + 1), replace=False))
        for engram in network.stack
    }
