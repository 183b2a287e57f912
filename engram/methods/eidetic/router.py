"""EideticNet's own router: a last network trained on all images of all tasks, where they are kept.

It is no task: it owns no units, and is trained anew with every task, over the prefix of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.checkpointing.tensors import pack, unpack
from engram.context import LearnContext
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.errors import DamagedSnapshot, ExamplesError
from engram.nn.batches import at_once, in_parts
from engram.nn.capacity import capacity
from engram.nn.network import Engram, Network, pixels
from engram.recognition.calibration import fitted_temperature
from engram.training.trainer import Trainer, TrainingPhase

NAME = "router"

MOST_TIMES = 20
"""How often an image of a small task or class counts at most."""


@dataclass(frozen=True)
class TrainedRouter:
    """A trained router, and for each task the numbers of the tasks that its held-out images are routed to."""

    engram: Engram
    given: tuple[Tensor, ...]
    """(M_t,) int64 of each."""

    @property
    def right(self) -> tuple[Tensor, ...]:
        """For each task which of its held-out images are routed to it, (M_t,) bool."""
        return tuple(given == number for number, given in enumerate(self.given))


def trained(
    network: Network,
    budget: Mapping[str, int],
    kept: Sequence[tuple[str, Examples]],
    context: LearnContext,
) -> TrainedRouter:
    """A router over the tasks of `network`, from the images of each.

    Parameters
    ----------
    kept
        Every task's name and images with their held-out part, in the order of the network's. What a task's engram was
        judged by is what the router is judged by: it has seen none of it.

    Raises
    ------
    Cancelled
    """
    names = tuple(name for name, _ in kept)
    parts = [examples for _, examples in kept]
    train = _together(names, parts, _by_class(parts) if context.recipe > 1 else _by_task(parts))
    held_out = _together(names, [_held_out_part(one) for one in parts])
    layout = network.layout
    free = {layer.layer: layer.free for layer in capacity(layout, budget, network.stack)}
    units = {layer: max(1, min(width, free[layer])) for layer, width in layout.widths.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        engram = Engram(layout, NAME, names, network.owned, units).to(context.device)
    trainer = Trainer(network, train, held_out, replace(context, optimiser=None), context.generator())
    trainer.fit(engram, TrainingPhase.to_plateau(context.options, name="recognising"))
    engram = engram.freeze()
    logits = scores(network, engram, held_out.images, context.device)
    with torch.no_grad():
        temperature = fitted_temperature(logits, held_out.labels).to(context.device)
        engram.head.weight.div_(temperature)
        engram.head.bias.div_(temperature)
    given = logits.argmax(1)
    return TrainedRouter(engram, tuple(given[held_out.labels == number] for number in range(len(names))))


def _held_out_part(examples: Examples) -> Examples:
    assert examples.held_out is not None, "images are kept divided as they were learned from and judged by"
    return examples.held_out


def _by_task(parts: Sequence[Examples]) -> list[Tensor]:
    """Indices of each task's images, those of small tasks several times, so that tasks count about by their classes."""
    density = [len(part) / len(part.classes) for part in parts]
    times = [min(MOST_TIMES, round(max(density) / own)) for own in density]
    return [torch.arange(len(part)).repeat(count) for part, count in zip(parts, times, strict=True)]


def _by_class(parts: Sequence[Examples]) -> list[Tensor]:
    """Indices of each task's images, those of small classes several times, so that all classes count about alike."""
    counts = [torch.tensor(part.counts()) for part in parts]
    most = max(int(own.max()) for own in counts)
    times = [(most / own.clamp_min(1)).round().long().clamp(1, MOST_TIMES) for own in counts]
    return [torch.arange(len(part)).repeat_interleave(own[part.labels]) for part, own in zip(parts, times, strict=True)]


def _together(names: tuple[str, ...], parts: Sequence[Examples], chosen: Sequence[Tensor] | None = None) -> Examples:
    """All images with their task as the label; of each task the `chosen` ones, by default all."""
    chosen = chosen or [torch.arange(len(part)) for part in parts]
    images = torch.cat([part.images[own] for part, own in zip(parts, chosen, strict=True)])
    sizes = torch.tensor([len(own) for own in chosen])
    return Examples(images, torch.arange(len(parts)).repeat_interleave(sizes), names)


@torch.no_grad()
def scores(network: Network, router: Engram, images: Tensor, device: torch.device) -> Tensor:
    """(B, T): a logit for each task, from images (B, C, H, W) uint8."""
    parts = []
    size = at_once(router.layout, router.reach, EVALUATION_BATCH)

    def answered(part: Tensor) -> Tensor:
        given = pixels(part.to(device))
        return router.answer(given, network.prefix(given)).cpu()

    for chosen in batches(len(images), EVALUATION_BATCH):
        parts.append(in_parts(images[chosen], size, answered))
    return torch.cat(parts)


def dump_images(task: str, examples: Examples) -> bytes:
    """A task's images as bytes."""
    about = {"task": task, "classes": list(examples.classes)}
    tensors = {"images": examples.images, "labels": examples.labels}
    if examples.held_out is not None:
        tensors |= {"held_out.images": examples.held_out.images, "held_out.labels": examples.held_out.labels}
    return pack("images", about, tensors)


def load_images(data: bytes) -> tuple[str, Examples]:
    """A task's images; raises DamagedSnapshot, UnsupportedFormat."""
    about, tensors = unpack("images", data)
    try:
        names = about["classes"]
        if not isinstance(names, list):
            raise DamagedSnapshot("the kept images lack a list of classes")
        classes, held_out = tuple(map(str, names)), None
        if "held_out.images" in tensors:
            held_out = Examples(tensors["held_out.images"], tensors["held_out.labels"], classes)
        return str(about["task"]), Examples(tensors["images"], tensors["labels"], classes, held_out)
    except (KeyError, ExamplesError) as error:
        raise DamagedSnapshot(f"the kept images lack {error}") from error
