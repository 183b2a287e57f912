"""Small models over networks with random weights, and what they answered on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from engram import Definition, Examples, InputShape, Memory
from engram.memory import dump, restore
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.pretrained.architectures import architecture
from engram.nn.pretrained.backbone import Backbone
from engram.snapshot import Parts
from testing.data.patterns import QUICK, bars
from tests.engram.nn.pretrained.drawn import Drawn, of_module

SIDE = 32
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "timm/test_efficientnet": {"num_classes": 3},
    "timm/test_vit": {"num_classes": 3, "img_size": SIDE},
}
CONVOLUTIONS, TOKENS = NETWORKS
NET = {"kind": "pretrained", "backbone": "net", "features": 64}
BANK = {"kind": "learned", "features": 64, "patch": 4}
OWN = "own"
"""The adopted task."""


@dataclass(frozen=True)
class Variant:
    """A kind of model over a network."""

    network: str
    backbone: str
    commons: Any
    adopted: bool = False
    sample: bool = False
    """Whether images of the adopted network's classes are learned from."""


VARIANTS = {
    "adapter": Variant(CONVOLUTIONS, "adapter", NET),
    "none": Variant(CONVOLUTIONS, "none", NET),
    "several": Variant(TOKENS, "adapter", [NET, BANK]),
    "together": Variant(CONVOLUTIONS, "adapter", [BANK, NET, {**NET, "size": 48, "together": True}]),
    "adopted": Variant(TOKENS, "none", NET, adopted=True),
    "adopted after a bank": Variant(CONVOLUTIONS, "none", [BANK, NET], adopted=True),
    "adopted with a sample": Variant(CONVOLUTIONS, "adapter", NET, adopted=True, sample=True),
}
CHOSEN = ("together", "adopted", "adopted with a sample")
"""Those of which the ordinary run has every law: both networks, adapters and none, known and not, several commons."""
ADOPTED = [name for name, variant in VARIANTS.items() if variant.adopted]


@cache
def brought(network: str) -> Drawn:
    return of_module(network, untaught(network, NETWORKS[network], SIDE), NETWORKS[network], size=SIDE)


def untaught(network: str, arguments: Mapping[str, Any], side: int, images: int = 32) -> nn.Module:
    """A network with first weights as its library draws them, and batch statistics that go with these."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = architecture(network).build(arguments).train()
        normalising = [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)]
        for one in normalising:
            one.momentum = None  # which is the mean of all that it has seen
        if normalising:
            with torch.no_grad():
                module(torch.randn(images, 3, side, side))
    return module.eval()


def pictures(task: int, count: int = 12, classes: int = 2, side: int = SIDE) -> Examples:
    return bars(task, count, classes, channels=3, side=side)


def everything(count: int = 4, side: int = SIDE) -> Tensor:
    """Images (9 * count, 3, side, side) uint8 of all tasks, the adopted one's among them."""
    return torch.cat([pictures(task, count, 3 if task == 3 else 2, side).images for task in range(4)])


def created(name: str) -> Memory:
    """A model that has learned nothing."""
    variant = VARIANTS[name]
    found = brought(variant.network)
    fields = {
        "backbone": variant.backbone,
        "commons": variant.commons,
        "width": 0.2 if variant.backbone == "adapter" else 1.0,
        "input": InputShape(channels=3, height=SIDE, width=SIDE),
        "settings": {"contenders": 2},
    }
    memory = Memory.create(Definition.model_validate(fields), {"net": Backbone(found.description, lambda: found.file)})
    if variant.adopted:
        memory.adopt(OWN, pictures(3, 1, 3).classes)
    return memory


def lessons(name: str) -> dict[str, Examples]:
    """What a variant learns, by task, in order."""
    first = {OWN: pictures(3, 12, 3)} if VARIANTS[name].sample else {}
    return {**first, **{f"task {task}": pictures(task) for task in range(2)}}


@dataclass(frozen=True)
class Grown:
    """A model that learned two tasks."""

    parts: Parts
    stages: tuple[Parts, ...]
    """Before the first task, and after each."""
    answers: Mapping[str, Mapping[int, bytes]]
    """By task and shape the logits of `everything`, on the day it was learned."""

    @property
    def tasks(self) -> list[str]:
        return list(self.answers)


@cache
def grown(name: str) -> Grown:
    """A variant after tasks 0 and 1."""
    memory, answers = created(name), {}
    stages = [dump(memory)]
    if VARIANTS[name].adopted:
        answers[OWN] = by_shape(memory, OWN)
    for task, examples in lessons(name).items():
        memory.learn(task, examples, QUICK)
        stages.append(dump(memory))
        answers[task] = by_shape(memory, task)
    return Grown(stages[-1], tuple(stages), answers)


def model(memory: Memory) -> StagedEidetic:
    assert isinstance(memory.method, StagedEidetic), "what has a pretrained commons is staged"
    return memory.method


def by_shape(memory: Memory, task: str) -> dict[int, bytes]:
    """The logits of `everything` in each shape."""
    found = model(memory).logits_by_shape([task], everything())[task]
    return {shape: logits.numpy().tobytes() for shape, logits in found.items()}


def again(parts: Parts) -> Memory:
    """A model from its parts, which can learn on."""
    return restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)
