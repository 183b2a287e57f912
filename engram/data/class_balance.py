"""Class balance: weights and orders by which all classes count alike, and the prior they take away."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.data.examples import Examples


def class_weights(examples: Examples) -> Tensor | None:
    """(classes,) float32: what an image of each class counts, so that all classes count alike and the mean is 1.

    None where all classes have equally many images.
    """
    counts = torch.tensor(examples.counts(), dtype=torch.float64)
    if bool((counts == counts[0]).all()):
        return None
    return (counts.sum() / (len(counts) * counts)).float()


def log_prior(examples: Examples) -> Tensor | None:
    """(classes,) float32: the log of each class's share of the images; None where all have equally many.

    Added to the logits of a classifier that was learned with all classes counting alike, it gives one for images that
    come as often as these do (Menon et al. 2021, "Long-tail learning via logit adjustment", equation 4).
    """
    if class_weights(examples) is None:
        return None
    counts = torch.tensor(examples.counts(), dtype=torch.float64)
    return (counts / counts.sum()).log().float()


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """(N,) int64: indices of as many images as there are (N,) labels, of every class about as many.

    The images of a class all come before one of them comes again.
    """
    present = torch.bincount(labels).nonzero().flatten().tolist()
    each = -(-len(labels) // len(present))
    drawn = []
    for label in present:
        members = (labels == label).nonzero().flatten()
        rounds = -(-each // len(members))
        drawn.append(
            torch.cat([members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)])[:each]
        )
    found = torch.cat(drawn)
    return found[torch.randperm(len(found), generator=generator)[: len(labels)]]


def image_weights(labels: Tensor, shares: Tensor) -> Tensor:
    """(M,) float64, of mean 1: what images count so that each class has its share of all.

    Parameters
    ----------
    labels
        (M,) int64.
    shares
        (classes,): classes without an image leave theirs to the others.
    """
    counts = torch.bincount(labels, minlength=len(shares)).double()
    each = (shares.double() / counts.clamp_min(1))[labels]  # (M,)
    return each * (len(labels) / each.sum())


def extended(held_out: Examples, train: Examples, least: int) -> Examples:
    """Held-out images, and for each class with fewer than `least` of them some that were learned from.

    One held-out image of a small class would decide for its whole class by chance. Where no class has too few, what is
    given are the held-out examples themselves.
    """
    counts = held_out.counts()
    some = [torch.zeros(0, dtype=torch.int64)]
    for label, count in enumerate(counts):
        members = (train.labels == label).nonzero().flatten()
        missing = min(max(0, least - count), len(members))
        if missing:
            some.append(members[torch.linspace(0, len(members) - 1, missing).long()])
    chosen = torch.cat(some)
    if not len(chosen):
        return held_out
    images = torch.cat([held_out.images, train.images[chosen]])
    return Examples(images, torch.cat([held_out.labels, train.labels[chosen]]), train.classes)
