"""Loss and accuracy of an engram on some examples, and what is known of them already."""

from __future__ import annotations

import math
import sys
from collections import deque
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.data.class_balance import image_weights
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.nn.batches import at_once, in_parts
from engram.nn.network import Engram, Network, pixels
from engram.runtime import Placement

ROUNDING = 1e-6  # more than sums of shares of images can be off


@dataclass(frozen=True)
class Evaluation:
    """Loss (mean cross-entropy) and accuracy (fraction) on some examples."""

    loss: float
    accuracy: float


HOPELESS = Evaluation(sys.float_info.max, 0.0)
"""What anything is better than."""


@dataclass
class KnownEvaluations:
    """The latest evaluations of engrams whose tensors have not changed since, as by a step or a loaded state."""

    _kept: deque[tuple[Engram, Examples, tuple[tuple[int, int], ...], Evaluation]] = field(
        default_factory=lambda: deque(maxlen=8)
    )

    def of(self, engram: Engram, examples: Examples) -> Evaluation | None:
        """What was found; None where the engram has changed since, or was not measured on these very examples."""
        state = _versions(engram)
        for one, images, then, found in self._kept:
            if one is engram and images is examples and then == state:
                return found
        return None

    def keep(self, engram: Engram, examples: Examples, found: Evaluation) -> None:
        """Note what an engram, as it is now, was found to be."""
        self._kept.append((engram, examples, _versions(engram), found))


def _versions(engram: Engram) -> tuple[tuple[int, int], ...]:
    """Where each tensor lies, and how often it was changed in place."""
    tensors = [*engram.parameters(), *engram.buffers()]
    return tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)


@torch.no_grad()
def measure(
    network: Network,
    engram: Engram,
    examples: Examples,
    placement: Placement | None = None,
    reporter: Reporter | None = None,
    *,
    balanced: bool = False,
    least: float = 0.0,
    served: bool = False,
) -> Evaluation:
    """Loss and accuracy of an engram's head in eval mode; `network` has its prefix, `placement` sends its images.

    Parameters
    ----------
    balanced
        Whether both are the mean over the classes instead of the mean over the images.
    least
        An accuracy that it is enough to be under: once no image that is left could raise it to that, the rest is not
        looked at, and what is given is an infinite loss and the accuracy if it answered all of them right.
    served
        Whether it is judged as it will be served, which takes half of the time; it has to say what it reads.

    Raises
    ------
    Cancelled
        Only with a `reporter`.
    """
    was_training, size = engram.training, at_once(engram.layout, engram.reach, EVALUATION_BATCH)
    check = None if reporter is None else reporter.check
    learns = engram.head.weight.requires_grad
    placement = placement or Placement(examples.images.device)

    def answered(part: Tensor) -> Tensor:
        images = pixels(part)
        if serving is not None:
            return serving.answer(engram.task, images)[1]
        return engram.answer(images, network.joined(engram, images))

    engram.eval()
    loss, correct, left, each = 0.0, 0.0, float(len(examples)), None
    if balanced:
        each = image_weights(examples.labels, torch.ones(len(examples.classes))).to(placement.device)  # (N,)
    try:
        # Plans are made of what cannot change, as nothing does until it is judged.
        serving = network.appended(engram.requires_grad_(False), candidate=True) if served else None
        for chosen in batches(len(examples), EVALUATION_BATCH):
            labels = placement.rows(examples.labels, chosen)
            logits = in_parts(placement.rows(examples.images, chosen), size, answered, check)  # (B, classes)
            counted = None if each is None else each[chosen.to(each.device)]  # (B,)
            lost, right = _counted(logits, labels, counted)
            loss, correct = loss + lost, correct + right
            left -= len(labels) if counted is None else float(counted.sum())
            if (most := (correct + left) / len(examples) + (0.0 if counted is None else ROUNDING)) < least:
                return Evaluation(math.inf, most)
    finally:
        engram.train(was_training)
        if served:
            engram.requires_grad_(learns)
    return Evaluation(loss / len(examples), correct / len(examples))


def _counted(logits: Tensor, labels: Tensor, counted: Tensor | None) -> tuple[float, float]:
    """Sums of losses and of right answers, of images that count 1 or so much each."""
    right = logits.argmax(1) == labels  # (B,)
    if counted is None:
        return float(F.cross_entropy(logits, labels, reduction="sum")), float(right.sum())
    return float((counted * F.cross_entropy(logits, labels, reduction="none")).sum()), float((counted * right).sum())
