"""EideticNet's own router: a last network trained on all images of all tasks, where a model may keep them.

It is no task: it owns no units, and is trained anew with every task, over the prefix of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.capacity import capacity
from engram.data import Examples, split
from engram.errors import DamagedSnapshot
from engram.network import Engram, Network, pixels
from engram.options import LearnOptions
from engram.progress import Reporter
from engram.recogniser import fitted_temperature
from engram.tensors import pack, unpack
from engram.training import EVALUATION_BATCH, Run, Trainer, batches

NAME = "router"


@dataclass(frozen=True)
class Routed:
    """A router, and the share of each task's held-out images that it gives to their task."""

    engram: Engram
    recognised: dict[str, float]


def trained(
    network: Network,
    budget: Mapping[str, int],
    kept: Sequence[tuple[str, Examples]],
    options: LearnOptions,
    seed: int,
    reporter: Reporter,
    device: torch.device,
) -> Routed:
    """A router over the tasks of `network`, from the images of each.

    Parameters
    ----------
    kept
        Every task's name and images, in the order of the network's.

    Raises
    ------
    Cancelled
    """
    names = tuple(name for name, _ in kept)
    images = torch.cat([examples.images for _, examples in kept])
    labels = torch.cat([torch.full((len(examples),), number) for number, (_, examples) in enumerate(kept)])
    train, held_out = split(Examples(images, labels, names), options.held_out, seed)
    layout = network.layout
    free = {layer.layer: layer.free for layer in capacity(layout, budget, network.stack)}
    units = {layer: max(1, min(width, free[layer])) for layer, width in layout.widths.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        engram = Engram(layout, NAME, names, network.owned, units).to(device)
    generator = torch.Generator().manual_seed(seed)
    trainer = Trainer(network, train, held_out, options, reporter, device, generator)
    trainer.fit(engram, Run("recognising", (0.0, 1.0), options.epochs, options.learning_rate, options.patience))
    engram = engram.freeze()
    logits = scores(network, engram, held_out.images, device)
    with torch.no_grad():
        temperature = fitted_temperature(logits, held_out.labels).to(device)
        engram.head.weight.div_(temperature)
        engram.head.bias.div_(temperature)
    right = logits.argmax(1) == held_out.labels
    shares = {name: float(right[held_out.labels == number].double().mean()) for number, name in enumerate(names)}
    return Routed(engram, shares)


@torch.no_grad()
def scores(network: Network, router: Engram, images: Tensor, device: torch.device) -> Tensor:
    """(B, T): a logit for each task, from images (B, C, H, W) uint8."""
    parts = []
    for chosen in batches(len(images), EVALUATION_BATCH):
        given = pixels(images[chosen].to(device))
        parts.append(router.logits(router(given, network.prefix(given))).cpu())
    return torch.cat(parts)


def dump_images(task: str, examples: Examples) -> bytes:
    """A task's images as bytes."""
    about = {"task": task, "classes": list(examples.classes)}
    return pack("images", about, {"images": examples.images, "labels": examples.labels})


def load_images(data: bytes) -> tuple[str, Examples]:
    """A task's images; raises DamagedSnapshot, UnsupportedFormat."""
    about, tensors = unpack("images", data)
    try:
        names = about["classes"]
        assert isinstance(names, list), "classes are listed"
        return str(about["task"]), Examples(tensors["images"], tensors["labels"], tuple(map(str, names)))
    except (KeyError, AssertionError) as error:
        raise DamagedSnapshot(f"the kept images lack {error}") from error
